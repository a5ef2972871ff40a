"""Actions on their way into actions.parquet: those that have a user and a product, part by part."""

from pathlib import Path

import polars as pl


class KnownActions:
    """Keeps the actions of the tables' users and products; counts the others in `dropped`."""

    def __init__(self, users: pl.DataFrame, items: pl.DataFrame) -> None:
        self._users, self._items = users.select("user_id"), items.select(pl.col("sku").alias("sku_id"))
        self.dropped = {"unknown_users": 0, "unknown_products": 0, "actions": 0}

    def keep(self, block: pl.DataFrame) -> pl.DataFrame:
        """The block's actions, in their order, whose `user_id` and `sku_id` the tables have."""
        with_user = block.join(self._users, on="user_id", how="semi", maintain_order="left")
        with_item = block.join(self._items, on="sku_id", how="semi")
        kept = with_user.join(self._items, on="sku_id", how="semi", maintain_order="left")
        self.dropped["unknown_users"] += block.height - with_user.height
        self.dropped["unknown_products"] += block.height - with_item.height
        self.dropped["actions"] += block.height - kept.height
        return kept


def describe_dropped(dropped: dict[str, int]) -> str:
    """A line about what `KnownActions` left out."""
    return (
        f"{dropped['actions']:,} actions left out: {dropped['unknown_users']:,} of users and "
        f"{dropped['unknown_products']:,} of products that the tables do not have"
    )


class Parts:
    """Actions on disk, a file a block, until they are joined; `directory` is made."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._files = directory, list[Path]()
        directory.mkdir()

    def write(self, actions: pl.DataFrame) -> None:
        path = self._directory / f"{len(self._files):06}.parquet"
        actions.write_parquet(path)
        self._files.append(path)

    def scan(self) -> pl.LazyFrame:
        """All actions, in the order of the parts."""
        return pl.scan_parquet(self._files)

    def join(self, out: Path) -> tuple[int, int, int]:
        """Write all as one file and delete the parts; how many, the first and the last second.

        Nothing is written where there is no action at all: (0, 0, 0).
        """
        if not self._files:
            return 0, 0, 0
        ts = pl.col("ts")
        count, first, last = (
            self.scan().select(pl.len(), ts.min().alias("first"), ts.max().alias("last")).collect().row(0)
        )
        if count:
            self.scan().sink_parquet(out)
        self.discard()
        return count, first or 0, last or 0

    def discard(self) -> None:
        """Delete the parts."""
        for path in self._files:
            path.unlink()
        self._directory.rmdir()

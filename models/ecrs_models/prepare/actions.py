"""Writes actions.parquet in parts, keeping only actions whose user and product are known."""

from pathlib import Path

import polars as pl


class KnownActions:
    """Filters actions by the users and products of the tables, and counts the others in `dropped`."""

    def __init__(self, users: pl.DataFrame, items: pl.DataFrame) -> None:
        self._users, self._items = users.select("user_id"), items.select(pl.col("sku").alias("sku_id"))
        self.dropped = {"unknown_users": 0, "unknown_products": 0, "actions": 0}

    def keep(self, block: pl.DataFrame) -> pl.DataFrame:
        """Return the actions of a block whose `user_id` and `sku_id` are in the tables, in their order."""
        with_user = block.join(self._users, on="user_id", how="semi", maintain_order="left")
        with_item = block.join(self._items, on="sku_id", how="semi")
        kept = with_user.join(self._items, on="sku_id", how="semi", maintain_order="left")
        self.dropped["unknown_users"] += block.height - with_user.height
        self.dropped["unknown_products"] += block.height - with_item.height
        self.dropped["actions"] += block.height - kept.height
        return kept


def describe_dropped(dropped: dict[str, int]) -> str:
    """Return a line of text about the actions that `KnownActions` dropped."""
    return (
        f"{dropped['actions']:,} actions dropped: {dropped['unknown_users']:,} with an unknown user, "
        f"{dropped['unknown_products']:,} with an unknown product"
    )


class Parts:
    """Actions on disk, one Parquet file per block, until they are joined into one. Creates `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._files = directory, list[Path]()
        directory.mkdir()

    def write(self, actions: pl.DataFrame) -> None:
        """Append a part."""
        path = self._directory / f"{len(self._files):06}.parquet"
        actions.write_parquet(path)
        self._files.append(path)

    def scan(self) -> pl.LazyFrame:
        """Return all actions, in the order of the parts."""
        return pl.scan_parquet(self._files)

    def join(self, out: Path) -> tuple[int, int, int]:
        """Write all actions to one file and delete the parts.

        Returns the number of actions and the first and last timestamp, in Unix seconds. If there are no
        actions, no file is written and the result is (0, 0, 0).
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
        """Delete the parts and their directory."""
        for path in self._files:
            path.unlink()
        self._directory.rmdir()

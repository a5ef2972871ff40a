"""A prepared data set on disk, and the log of actions in memory.

DIR/
    users.dat products.dat   the platform's formats
    actions.parquet          user_id, sku_id: string; ts: int64, Unix seconds; type: int8
    dataset.json             name, source, counts, split
    codes.json               what surrogate codes stand for (optional)
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ecrs.domain.entities import ITEM_FIELDS, PROFILE_FIELDS
from ecrs_models.data.disk import writing_to
from ecrs_models.data.log import Log
from ecrs_models.data.split import Split
from ecrs_models.errors import DataError

USERS, PRODUCTS, ACTIONS, ABOUT = "users.dat", "products.dat", "actions.parquet", "dataset.json"
USER_COLUMNS = ("user_id", *PROFILE_FIELDS)
ACTION_SCHEMA = {"user_id": pl.String, "sku_id": pl.String, "ts": pl.Int64, "type": pl.Int8}


@dataclass(frozen=True)
class Dataset:
    """A prepared data set: the tables as strings, the actions by the tables' rows."""

    path: Path
    about: dict[str, Any]
    users: pl.DataFrame
    items: pl.DataFrame
    log: Log

    @classmethod
    def load(cls, path: Path) -> "Dataset":
        """Read the data set at `path`; DataError says what is missing or wrong."""
        try:
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"no data set at {path}: {ABOUT} is missing (run `ecrs prepare` first)") from None
        except ValueError as error:
            raise DataError(f"{path / ABOUT}: {error}") from error
        try:
            users = read_table(path / USERS, USER_COLUMNS)
            items = read_table(path / PRODUCTS, ITEM_FIELDS)
            actions = (
                pl.scan_parquet(path / ACTIONS)
                .join(numbered(users, "user_id", "user"), on="user_id", maintain_order="left")
                .join(numbered(items, "sku", "item"), left_on="sku_id", right_on="sku", maintain_order="left")
                .select("user", "item", "ts", "type")
                .collect()
            )
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not a prepared data set: {error}") from error
        user, item, ts, kind = (actions[name].to_numpy() for name in ("user", "item", "ts", "type"))
        return cls(path, about, users, items, Log.of(user, item, ts, kind, users=users.height))

    @property
    def name(self) -> str:
        return self.about["name"]

    @property
    def split(self) -> Split:
        return Split(**self.about["split"])


def read_table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """A `.dat` file that `ecrs prepare` wrote, every column a string."""
    return pl.read_csv(
        path, separator=":", has_header=False, quote_char=None, schema=dict.fromkeys(columns, pl.String)
    )


def write_table(table: pl.DataFrame, path: Path) -> None:
    table.write_csv(path, separator=":", include_header=False, quote_style="never")


def numbered(table: pl.DataFrame, key: str, name: str) -> pl.LazyFrame:
    """The table's `key` with its row number, int32, as `name`."""
    return table.lazy().select(key, pl.int_range(pl.len(), dtype=pl.Int32).alias(name))


def write_about(
    directory: Path, *, name: str, source: str, split: Split, counts: dict[str, int], **more: Any
) -> None:
    """Write dataset.json; `more` goes into it as it is."""
    about = {"name": name, "source": source, "counts": counts, "split": asdict(split), **more}
    (directory / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A directory to fill, which replaces the data set `directory` at the end.

    `directory` is not changed before; after an error nothing is left behind. Raises DataError if `directory`
    is no data set, or if the files cannot be written.
    """
    if directory.exists() and not (directory / ABOUT).is_file() and any(directory.iterdir()):
        raise DataError(f"{directory} exists and is no data set: not overwritten")
    with writing_to(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        with writing_to(directory):
            yield draft
            draft.chmod(0o755)
            if directory.exists():
                old = draft.with_name(draft.name + ".old")
                directory.rename(old)
                draft.rename(directory)
                shutil.rmtree(old)
            else:
                draft.rename(directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise

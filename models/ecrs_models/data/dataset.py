"""A prepared data set: reading it from disk, and writing its files.

DIR/
    users.dat products.dat   in the platform's formats
    actions.parquet          user_id, sku_id: string; ts: int64, Unix seconds; type: int8
    dataset.json             name, source, counts, split
    codes.json               the meaning of coded values (optional)
"""

import hashlib
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
    """A prepared data set in memory.

    `about` is the content of dataset.json. The columns of `users` and `items` are strings; `log` refers to
    users and items by their row in these tables.
    """

    path: Path
    about: dict[str, Any]
    users: pl.DataFrame
    items: pl.DataFrame
    log: Log

    @classmethod
    def load(cls, path: Path) -> "Dataset":
        """Read the data set at `path`. Raises DataError if a file is missing or malformed."""
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
        """Name of the data set, from dataset.json."""
        return self.about["name"]

    @property
    def split(self) -> Split:
        """Time split into fit, tuning and test periods, from dataset.json."""
        return Split(**self.about["split"])

    def fingerprint(self) -> str:
        """Return the sha256 of the data set's files, in hexadecimal."""
        digest = hashlib.sha256()
        for name in (USERS, PRODUCTS, ACTIONS):
            with open(self.path / name, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def read_table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read a `.dat` file that `write_table` wrote. Every column is a string."""
    return pl.read_csv(
        path, separator=":", has_header=False, quote_char=None, schema=dict.fromkeys(columns, pl.String)
    )


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a table as a `.dat` file: one row per line, values separated by colons, no header."""
    table.write_csv(path, separator=":", include_header=False, quote_style="never")


def numbered(table: pl.DataFrame, key: str, name: str) -> pl.LazyFrame:
    """Return the column `key` of the table, with the row number, int32, as column `name`."""
    return table.lazy().select(key, pl.int_range(pl.len(), dtype=pl.Int32).alias(name))


def write_about(
    directory: Path, *, name: str, source: str, split: Split, counts: dict[str, int], **more: Any
) -> None:
    """Write dataset.json. `more` holds additional JSON fields."""
    about = {"name": name, "source": source, "counts": counts, "split": asdict(split), **more}
    (directory / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yield an empty directory that replaces the data set `directory` when the context ends.

    `directory` stays unchanged until then. After an error, the new directory is deleted. Raises DataError if
    `directory` holds something other than a data set, or if the files cannot be written.
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

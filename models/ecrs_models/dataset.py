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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecrs.actions import ActionType
from ecrs.clock import DAY_S
from ecrs.domain import HISTORY_LENGTH, ITEM_FIELDS, PROFILE_FIELDS
from ecrs.features import ABSENT
from ecrs_models.errors import DataError

USERS, PRODUCTS, ACTIONS, ABOUT = "users.dat", "products.dat", "actions.parquet", "dataset.json"
USER_COLUMNS = ("user_id", *PROFILE_FIELDS)
ACTION_SCHEMA = {"user_id": pl.String, "sku_id": pl.String, "ts": pl.Int64, "type": pl.Int8}

WINDOW_DAYS = 28
"""An evaluation period: four weeks, less where the data are short."""


@dataclass(frozen=True)
class Split:
    """Unix seconds: fit before `valid_from` to tune, before `test_from` to report; `until` ends the test."""

    valid_from: int
    test_from: int
    until: int

    @property
    def window_s(self) -> int:
        """How long a period is."""
        return self.test_from - self.valid_from

    @classmethod
    def suggest(cls, first: int, last: int, window_days: int | None = None) -> "Split":
        """Two periods of WINDOW_DAYS at the end of the data, or of a sixth of it where it is short.

        `window_days` gives their length instead. DataError if that leaves nothing to learn from.
        """
        window = window_days * DAY_S if window_days else min(WINDOW_DAYS * DAY_S, (last - first) // 6)
        if window_days and last + 1 - 2 * window <= first:
            raise DataError(f"two periods of {window_days} days leave nothing to learn from")
        if window >= DAY_S:
            window -= window % DAY_S
        until = last + 1
        return cls(until - 2 * window, until - window, until)

    def end_after(self, start: int) -> int:
        """Where the evaluation period that begins at `start` ends."""
        return next((end for end in (self.valid_from, self.test_from, self.until) if end > start), start)


@dataclass(frozen=True)
class Log:
    """Actions sorted by user and time, users and items by their row in the tables.

    `user`, `item`, int32, `ts`, int64, `type`, int8, shape (N,); actions of one user at one time
    (a basket) keep the file's order. `start`, int64, shape (users + 1,): user u has the rows
    [start[u], start[u + 1]).
    """

    user: np.ndarray
    item: np.ndarray
    ts: np.ndarray
    type: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, user: np.ndarray, item: np.ndarray, ts: np.ndarray, kind: np.ndarray, users: int) -> "Log":
        order = np.lexsort((ts, user))
        user = user[order]
        start = np.searchsorted(user, np.arange(users + 1))
        return cls(user, item[order], ts[order], kind[order], start)

    def __len__(self) -> int:
        return len(self.ts)

    def before(self, ts: int) -> "Log":
        return self._where(self.ts < ts)

    def between(self, begin: int, end: int) -> "Log":
        return self._where((self.ts >= begin) & (self.ts < end))

    def purchase_rows(self) -> np.ndarray:
        """The rows of orders; all rows where a shop's log has no orders at all."""
        orders = self.type == ActionType.ORDER
        return np.flatnonzero(orders) if orders.any() else np.arange(len(self))

    def purchases(self) -> "Log":
        return self._where(self.purchase_rows())

    @cached_property
    def basket(self) -> np.ndarray:
        """For each row, the first row of the same user and time: int64, shape (N,)."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        first = np.r_[True, (self.user[1:] != self.user[:-1]) | (self.ts[1:] != self.ts[:-1])]
        return np.flatnonzero(first)[np.cumsum(first) - 1]

    def histories(self, user: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The newest HISTORY_LENGTH items of each user before the row `end`, newest first.

        `user`, `end`, int, shape (M,); int32, shape (M, HISTORY_LENGTH), filled up with ABSENT.
        """
        if not len(self):
            return np.full((len(user), HISTORY_LENGTH), ABSENT, dtype=np.int32)
        rows = end[:, None] - 1 - np.arange(HISTORY_LENGTH)
        known = rows >= self.start[user][:, None]
        return np.where(known, self.item[np.where(known, rows, 0)], np.int32(ABSENT))

    def latest(self, user: np.ndarray) -> np.ndarray:
        """`histories` at the end of the log."""
        return self.histories(user, self.start[user + 1])

    def newest(self, count: int) -> "Log":
        """The last `count` rows of each user."""
        return self._where(np.arange(len(self)) >= self.start[self.user + 1] - count)

    def _where(self, keep: np.ndarray) -> "Log":
        """Some rows, by mask or by number in ascending order."""
        users = len(self.start) - 1
        user = self.user[keep]
        start = np.searchsorted(user, np.arange(users + 1))
        return Log(user, self.item[keep], self.ts[keep], self.type[keep], start)


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
    """A directory to fill that takes the place of the data set `directory` when all went well.

    Nothing is changed at `directory` before; after an error nothing is left behind.
    """
    if directory.exists() and not (directory / ABOUT).is_file() and any(directory.iterdir()):
        raise DataError(f"{directory} exists and is no data set: not overwritten")
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
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

"""The journal of item changes in an SQLite file, for the embedded profile.

One row per changed item, so the file grows with the number of items and not with the number of changes. The
processes of the platform share the file: cm writes, the others read.
"""

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from ecrs.rpc.deadlines import bounded
from ecrs.rpc.errors import Unavailable
from ecrs.storage.item_journal import (
    ItemChange,
    ItemJournal,
    Page,
    parse_changes,
    position,
    sequence_of,
)

T = TypeVar("T")

LOCK_WAIT_S = 5.0
"""Longest wait for another process that is writing."""
SKUS_PER_QUERY = 500
"""SQLite takes at least 999 parameters per statement."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (id TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS item (
    sku TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL UNIQUE,  -- of the item's latest change; grows by one with each change
    changed_at INTEGER NOT NULL,       -- Unix seconds
    kind TEXT NOT NULL,                -- a ChangeKind
    out_of_stock INTEGER NOT NULL,
    brand TEXT NOT NULL,
    shop TEXT NOT NULL,
    category TEXT NOT NULL
) STRICT;
"""

_FIELDS = "sku, kind, out_of_stock, brand, shop, category"  # as in ItemChange
_WRITE = f"""
INSERT INTO item ({_FIELDS}, changed_at, sequence)
VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT ifnull(max(sequence), 0) + 1 FROM item))
ON CONFLICT (sku) DO UPDATE SET
    sequence = excluded.sequence, changed_at = excluded.changed_at, out_of_stock = excluded.out_of_stock
"""  # noqa: S608 - made of constants
_REPLACE_RECORD = """,
    kind = excluded.kind, brand = excluded.brand, shop = excluded.shop, category = excluded.category
"""


class SqliteItemJournal(ItemJournal):
    """An `ItemJournal` in a file. All access is on a thread of its own.

    The file is opened, checked, and created if it is missing, at the first use, and again after a fault: it
    may have been repaired or replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[sqlite3.Connection, str] | None = None  # with the journal's id
        self._thread = ThreadPoolExecutor(1, "item_journal")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown()

    async def read(self, after: str, limit: int, timeout_s: float) -> Page:
        """Read a page by the index on the sequence."""

        def read(connection: sqlite3.Connection, journal_id: str) -> Page:
            (last,) = connection.execute("SELECT ifnull(max(sequence), 0) FROM item").fetchone()
            sequence = sequence_of(after, journal_id, last)
            rows = connection.execute(
                f"SELECT sequence, {_FIELDS} FROM item WHERE sequence > ? ORDER BY sequence LIMIT ?",  # noqa: S608
                (sequence, limit),
            ).fetchall()
            changes = parse_changes([row[1:] for row in rows])
            end = rows[-1][0] if rows else sequence
            return Page(changes, position(journal_id, end), is_last=len(rows) < limit)

        return await self._run(read, timeout_s)

    async def changes_of(self, skus: Sequence[str], timeout_s: float) -> dict[str, ItemChange]:
        """Look items up by their primary key."""

        def read(connection: sqlite3.Connection, journal_id: str) -> dict[str, ItemChange]:
            rows = []
            for start in range(0, len(skus), SKUS_PER_QUERY):
                part = skus[start : start + SKUS_PER_QUERY]
                places = ", ".join("?" * len(part))
                query = f"SELECT {_FIELDS} FROM item WHERE sku IN ({places})"  # noqa: S608
                rows += connection.execute(query, part).fetchall()
            return {change.sku: change for change in parse_changes(rows)}

        return await self._run(read, timeout_s)

    async def write(self, changes: Sequence[ItemChange], timeout_s: float) -> None:
        """Write changes in one transaction."""
        changed_at = int(time.time())

        def write(connection: sqlite3.Connection, journal_id: str) -> None:
            with connection:  # commits, or rolls back after an exception
                connection.execute("BEGIN IMMEDIATE")
                for change in changes:
                    statement = _WRITE + _REPLACE_RECORD if change.replaces_record else _WRITE
                    connection.execute(statement, (*change, changed_at))

        await self._run(write, timeout_s)

    async def _run(self, job: Callable[[sqlite3.Connection, str], T], timeout_s: float) -> T:
        """Run `job` on the journal's thread with the connection and the journal's id."""

        def run() -> T:
            try:
                if self._opened is None:
                    self._opened = self._open()
                return job(*self._opened)
            except sqlite3.Error as error:
                self._close()
                raise Unavailable(self._fault(error)) from error

        result = asyncio.get_running_loop().run_in_executor(self._thread, run)
        return await bounded(timeout_s, "the item journal", result, dependency="item_journal")

    # SQLite waits for a lock, except for the one that it needs to change the journal mode of a new file.
    @retry(
        retry=retry_if_exception(lambda error: getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY),
        stop=stop_after_delay(LOCK_WAIT_S),
        wait=wait_fixed(0.02),
        reraise=True,
    )
    def _open(self) -> tuple[sqlite3.Connection, str]:
        connection = sqlite3.connect(self._path, timeout=LOCK_WAIT_S, isolation_level=None)
        connection.text_factory = _text
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a commit is on disk when it returns
            connection.executescript(_SCHEMA)
            connection.execute(
                "INSERT INTO journal SELECT ? WHERE NOT EXISTS (SELECT 1 FROM journal)", (uuid.uuid4().hex,)
            )
            (fault,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if fault != "ok":
                raise sqlite3.DatabaseError(" ".join(fault.split()))
            (journal_id,) = connection.execute("SELECT id FROM journal").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection, journal_id

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _fault(self, error: sqlite3.Error) -> str:
        """Return the text for the caller: the file, the reason, and what to do."""
        if isinstance(error, sqlite3.OperationalError):  # no space, no permission, locked
            return f"the item journal {self._path} cannot be used: {error}"
        return (
            f"the item journal {self._path} is damaged ({error}): restore a copy of the file, or move it "
            "away to go on without the item changes made so far"
        )


def _text(raw: bytes) -> str | bytes:
    """Decode a stored text. One that is not UTF-8 stays as it is, so that only its entry is malformed."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw

"""Journal of the changes to one bundle's vectors, so that an index in memory survives a restart.

DIR/VERSION.txt    one line per change, oldest first:
                   `sku:{"cold_start_category":N,"vector":[v1, v2, …]}` for an item added or replaced,
                   `sku:null` for an item removed
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import structlog

from ecrs.bundle import BundleError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredVector:
    """An item's vector: float32, shape (DIM,); `cold_start_category` as in `VectorStore.upsert`."""

    vector: np.ndarray
    cold_start_category: int


Change = tuple[str, StoredVector | None]
"""A sku with its new vector, or with None if the item was removed."""


class JournalError(BundleError):
    """The journal cannot be read or created; the text names the file and the reason."""


class Journal:
    """The changes to the vectors of one bundle version. Only one process may use a journal at a time."""

    def __init__(self, directory: Path, version: str) -> None:
        """Create the directory if it is missing. Raises JournalError if that fails."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{directory}: {error.strerror}") from error
        self._path = directory / f"{version}.txt"

    def read(self, width: int) -> Iterator[Change]:
        """Yield all changes, oldest first; each vector must have `width` values.

        A last line without a line end was left by a kill or a power cut during a write. Its change was never
        confirmed to the caller, so it is removed from the file. Raises JournalError for any other malformed
        line.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            log.warning("dropped an unfinished change", file=str(self._path), bytes=len(content) - complete)
            os.truncate(self._path, complete)
        for number, line in enumerate(content[:complete].split(b"\n")[:-1], 1):
            sku, _, text = line.partition(b":")
            try:
                yield sku.decode(), _load(text, width)
            except (ValueError, TypeError, KeyError) as error:
                raise JournalError(f"{self._path}:{number}: {error}") from error

    def write(self, changes: list[Change]) -> None:
        """Append `changes` and flush them to disk. If that raises OSError, the file is unchanged."""
        unwritten = b"".join(f"{sku}:".encode() + _dump(stored) + b"\n" for sku, stored in changes)
        # Unbuffered: after a full disk, closing a buffered file would still write what is in the buffer.
        with open(self._path, "ab", buffering=0) as file:
            old_size = file.tell()
            try:
                while unwritten:
                    unwritten = unwritten[file.write(unwritten) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self._path, old_size)
                raise


def _load(text: bytes, width: int) -> StoredVector | None:
    raw = orjson.loads(text)
    if raw is None:
        return None
    vector = np.array(raw["vector"], dtype=np.float32)
    if vector.shape != (width,):
        raise ValueError(f"{vector.size} values, expected {width}")
    return StoredVector(vector, int(raw["cold_start_category"]))


def _dump(stored: StoredVector | None) -> bytes:
    if stored is None:
        return b"null"
    raw = {"cold_start_category": stored.cold_start_category, "vector": stored.vector.astype(np.float32)}
    return orjson.dumps(raw, option=orjson.OPT_SERIALIZE_NUMPY)

"""A file of the changes to the vectors of one bundle, for an index that lives in memory.

DIR/VERSION.txt    one line per change, oldest first:
                   `sku:{"cold_start_category":N,"vector":[v1, v2, …]}` added or replaced, `sku:null` removed
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
    """An item's vector, float32, shape (DIM,); `cold_start_category` as in `VectorStore.upsert`."""

    vector: np.ndarray
    cold_start_category: int


Change = tuple[str, StoredVector | None]
"""A sku, and where it is now or None: nowhere, it was removed."""


class JournalError(BundleError):
    """A bundle's changes cannot be read or kept; the text names the file and the fault."""


class Journal:
    """The changes to one bundle's vectors. One process at a time may hold it."""

    def __init__(self, directory: Path, version: str) -> None:
        """Makes the directory where it is missing; JournalError if that cannot be."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{directory}: {error.strerror}") from error
        self._path = directory / f"{version}.txt"

    def read(self, width: int) -> Iterator[Change]:
        """All changes, oldest first.

        A last line without an end is what a kill or a power cut left of a change that nobody was told
        is done: it is cut off. Raises JournalError for any other line that is not a change.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log.warning("an unfinished change is dropped", file=str(self._path), bytes=len(content) - whole)
            os.truncate(self._path, whole)
        for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
            sku, _, text = line.partition(b":")
            try:
                yield sku.decode(), _load(text, width)
            except (ValueError, TypeError, KeyError) as error:
                raise JournalError(f"{self._path}:{number}: {error}") from error

    def write(self, changes: list[Change]) -> None:
        """Append `changes`, on disk when this returns; after an OSError the file is as it was before."""
        left = b"".join(f"{sku}:".encode() + _dump(placed) + b"\n" for sku, placed in changes)
        # Without a buffer: what is left in one by a full disk, closing the file would write after all.
        with open(self._path, "ab", buffering=0) as file:
            before = file.tell()
            try:
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self._path, before)
                raise


def _load(text: bytes, width: int) -> StoredVector | None:
    raw = orjson.loads(text)
    if raw is None:
        return None
    vector = np.array(raw["vector"], dtype=np.float32)
    if vector.shape != (width,):
        raise ValueError(f"{vector.size} values, expected {width}")
    return StoredVector(vector, int(raw["cold_start_category"]))


def _dump(placed: StoredVector | None) -> bytes:
    if placed is None:
        return b"null"
    raw = {"cold_start_category": placed.cold_start_category, "vector": placed.vector.astype(np.float32)}
    return orjson.dumps(raw, option=orjson.OPT_SERIALIZE_NUMPY)

"""Removes data of other bundles from the profile store, in batches."""

from collections.abc import AsyncIterator, Iterable, Sequence, Set
from typing import Any

import numpy as np
from redis.asyncio import Redis

from ecrs.bundle import Bundle
from ecrs.storage.records import StoredKey
from ecrs_seed.bundle_records import keys
from ecrs_seed.items import ItemRecords

SCANNED_KEYS = 1000
"""Number of keys that one step of a scan visits."""


async def remove_bundle_derived(redis: Redis, *, except_of: Set[str]) -> None:
    """Remove the histories and aggregates of all versions except `except_of`."""
    async for names in _scan(redis):
        derived = [key for name in names if (key := StoredKey.parse(name)) and key.is_bundle_derived]
        if stale := [key.name for key in derived if key.version.decode() not in except_of]:
            await redis.unlink(*stale)


async def remove_stale(bundle: Bundle, redis: Redis, items: ItemRecords) -> int:
    """Remove users and items that the bundle does not have, and histories and aggregates of other versions.

    Items that people added or changed are kept. Returns the number of removed keys. Needs 8 bytes of memory
    for each key of the bundle.
    """
    bundle_keys = _HashedKeys(keys(bundle))
    removed = 0
    async for names in _scan(redis):
        stale = [key for name in bundle_keys.exclude_from(names) if (key := StoredKey.parse(name))]
        if user_keys := [key.name for key in stale if not key.is_item]:
            removed += await redis.unlink(*user_keys)
        removed += await items.remove([key.id for key in stale if key.is_item])
    return removed


class _HashedKeys:
    """A set of keys that only keeps their hashes. A hash collision keeps a stale key, which is harmless."""

    def __init__(self, names: Iterable[str]) -> None:
        self._hashes = np.sort(np.fromiter((hash(name.encode()) for name in names), dtype=np.int64))

    def exclude_from(self, names: Sequence[bytes]) -> list[bytes]:
        """Return `names` without those that are in the set."""
        hashes = np.fromiter(map(hash, names), dtype=np.int64, count=len(names))
        first, last = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        return [names[index] for index in np.flatnonzero(first == last).tolist()]


async def _scan(redis: Redis) -> AsyncIterator[list[bytes]]:
    """Yield the store's keys in batches; a key may appear more than once."""
    names: Any
    cursor = 0
    while True:
        cursor, names = await redis.scan(cursor, count=SCANNED_KEYS)
        yield names
        if not cursor:
            return

"""Cache of the item records that cm reads from the profile store."""

import time
from collections.abc import Iterable, Sequence

from cachetools import TTLCache

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.storage.profiles import ProfileStore
from ecrs.storage.seeded_version import SeededVersion
from ecrs.wire.messages import from_item

MAX_ITEMS_CACHED = 100_000
"""Largest number of cached records. A record takes 840 bytes: 57 MB for the 67,820 items of the demo, in a
container limited to 256 MB, of which cm uses 56 MB otherwise."""


class ItemCache:
    """Reads each record from the store at most once in `age_s` seconds, unless the cache is full.

    A change by this process is visible immediately, because it calls `forget`; a change by another process is
    visible within `age_s`. Unknown items are not cached. The cache is emptied when another bundle goes live.
    """

    def __init__(self, profiles: ProfileStore, seeded: SeededVersion, age_s: float) -> None:
        self._profiles = profiles
        self._seeded = seeded
        self._cached: TTLCache[str, ItemInfo] = TTLCache(MAX_ITEMS_CACHED, age_s, time.monotonic)
        self._version = ""
        self._changes = 0

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[ItemInfo | None]:
        """Return the records in the order of `skus`, None for unknown items.

        Raises the faults of `ProfileStore.items`.
        """
        if self._version != self._seeded.version:
            self._version = self._seeded.version
            self._cached.clear()
        records: dict[str, ItemInfo] = {}
        missing = []
        for sku in skus:
            try:
                records[sku] = self._cached[sku]  # `get` takes twice as long
            except KeyError:
                missing.append(sku)
        if missing:
            records |= await self._read(missing, timeout_s)
        return [records.get(sku) for sku in skus]

    async def _read(self, skus: Sequence[str], timeout_s: float) -> dict[str, ItemInfo]:
        changes_before = self._changes
        items = await self._profiles.items(skus, timeout_s)
        records = {item.sku: from_item(item) for item in items if item is not None}
        if self._changes == changes_before:  # otherwise these records may be older than the change
            self._cached.update(records)
        return records

    def forget(self, skus: Iterable[str]) -> None:
        """Drop the records of changed items."""
        self._changes += 1
        for sku in skus:
            self._cached.pop(sku, None)

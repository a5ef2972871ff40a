"""Item records that cm has read from the profile store."""

import time
from collections.abc import Iterable, Sequence

from cachetools import TTLCache

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.storage.profiles import ProfileStore
from ecrs.storage.seeded_version import SeededVersion
from ecrs.wire.messages import from_item

MAX_ITEMS_CACHED = 100_000
"""Records kept, 840 bytes each: 57 MB for the demo's 67,820, in a container of 256 MB that cm otherwise fills
with 56 MB."""


class ItemCache:
    """Reads a record from the store at most once in `age_s` seconds, as long as it is kept.

    A change made by this process is visible at once (`forget`), one made by another process within `age_s`.
    Unknown items are looked up each time.
    """

    def __init__(self, profiles: ProfileStore, seeded: SeededVersion, age_s: float) -> None:
        self._profiles = profiles
        self._seeded = seeded
        self._kept: TTLCache[str, ItemInfo] = TTLCache(MAX_ITEMS_CACHED, age_s, time.monotonic)
        self._version = ""
        self._changes = 0

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[ItemInfo | None]:
        """The records in the order of `skus`, None where unknown. Raises as `ProfileStore.items`."""
        if self._version != self._seeded.version:
            self._version = self._seeded.version
            self._kept.clear()
        found: dict[str, ItemInfo] = {}
        missing = []
        for sku in skus:
            try:
                found[sku] = self._kept[sku]  # `get` takes twice as long
            except KeyError:
                missing.append(sku)
        if missing:
            found |= await self._read(missing, timeout_s)
        return [found.get(sku) for sku in skus]

    async def _read(self, skus: Sequence[str], timeout_s: float) -> dict[str, ItemInfo]:
        changes = self._changes
        items = await self._profiles.items(skus, timeout_s)
        read = {item.sku: from_item(item) for item in items if item is not None}
        if changes == self._changes:  # else these records may be older than the change
            self._kept.update(read)
        return read

    def forget(self, skus: Iterable[str]) -> None:
        """Drop the records of items that were changed."""
        self._changes += 1
        for sku in skus:
            self._kept.pop(sku, None)

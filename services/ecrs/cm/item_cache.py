"""Products' records that cm has read lately."""

import time
from collections.abc import Iterable, Sequence

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.storage.profiles import ProfileStore
from ecrs.storage.seeded_version import SeededVersion
from ecrs.wire.messages import from_item

MAX_ITEMS_CACHED = 20_000
"""Records kept: 20 MB were seen of them."""


class ItemCache:
    """Reads a record from the store once in `age_s`.

    A change that goes through this process is seen at once (`forget`), one through another cm, or past
    both, within `age_s`. Products that are not known are asked for each time.
    """

    def __init__(self, profiles: ProfileStore, seeded: SeededVersion, age_s: float) -> None:
        self._profiles = profiles
        self._seeded = seeded
        self._age_s = age_s
        self._kept: dict[str, tuple[ItemInfo, float]] = {}  # with the time until which it holds
        self._version = ""
        self._changes = 0

    async def of(self, skus: Sequence[str], timeout_s: float) -> list[ItemInfo | None]:
        """In the order of `skus`, None where unknown. Raises as `ProfileStore.items`."""
        if self._version != self._seeded.version:
            self._version = self._seeded.version
            self._kept.clear()
        now = time.monotonic()
        found = {sku: kept[0] for sku in skus if (kept := self._kept.get(sku)) and kept[1] > now}
        wanted = [sku for sku in skus if sku not in found]
        if wanted:
            found |= await self._read(wanted, timeout_s)
        return [found.get(sku) for sku in skus]

    async def _read(self, skus: Sequence[str], timeout_s: float) -> dict[str, ItemInfo]:
        changes, until = self._changes, time.monotonic() + self._age_s
        items = await self._profiles.items(skus, timeout_s)
        read = {item.sku: from_item(item) for item in items if item is not None}
        # After a change what was read may be of before it.
        if self._age_s and changes == self._changes:
            if len(self._kept) + len(read) > MAX_ITEMS_CACHED:
                self._kept.clear()
            self._kept |= {sku: (info, until) for sku, info in read.items()}
        return read

    def forget(self, skus: Iterable[str]) -> None:
        """They have changed."""
        self._changes += 1
        for sku in skus:
            self._kept.pop(sku, None)

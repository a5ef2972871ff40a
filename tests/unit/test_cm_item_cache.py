"""The cache of item records in cm."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from ecrs.cm.item_cache import ItemCache
from ecrs.domain.entities import Item
from ecrs.rpc.errors import Unavailable
from ecrs.storage.profiles import NotSeeded
from ecrs.storage.seeded_version import SeededVersion
from tests.fakes import FakeProfiles


@dataclass
class RecordingStore(FakeProfiles):
    """Records the skus of each call; sets `read` after reading and waits for `gate` before it returns."""

    requests: list[list[str]] = field(default_factory=list)
    read: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        self.requests.append(list(skus))
        records = await super().items(skus, timeout_s)
        self.read.set()
        if self.gate:
            await self.gate.wait()
        return records


def new_cache(store: RecordingStore, age_s: float = 3600.0) -> ItemCache:
    return ItemCache(store, SeededVersion("cm", store), age_s)


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore(products={sku: Item(sku, brand="1") for sku in "abc"})


async def brands(cache: ItemCache, skus: str) -> list[str | None]:
    return [info and info.brand for info in await cache.items(skus, 1.0)]


async def test_record_is_read_once_but_unknown_item_each_time(store: RecordingStore) -> None:
    cache = new_cache(store)
    for _ in range(2):
        assert await brands(cache, "axb") == ["1", None, "1"]
    assert await brands(cache, "ca") == ["1", "1"]
    assert store.requests == [["a", "x", "b"], ["x"], ["c"]]


async def test_record_is_read_again_once_expired_or_changed(store: RecordingStore) -> None:
    old, changed = new_cache(store, age_s=0.0), new_cache(store)
    for cache in (old, changed):
        await brands(cache, "ab")
    store.products["a"] = Item("a", brand="2")
    changed.forget(["a"])
    assert await brands(old, "a") == await brands(changed, "a") == ["2"]


async def test_record_changed_while_being_read_is_not_cached(store: RecordingStore) -> None:
    cache, store.gate = new_cache(store), asyncio.Event()
    reading = asyncio.create_task(brands(cache, "a"))
    await store.read.wait()
    store.products["a"] = Item("a", brand="2")
    cache.forget(["a"])
    store.gate.set()
    assert await reading == ["1"]  # this read began before the change
    assert await brands(cache, "a") == ["2"]


async def test_new_bundle_version_empties_cache(store: RecordingStore) -> None:
    seeded = SeededVersion("cm", store)
    cache = ItemCache(store, seeded, 3600.0)
    await seeded.check()
    assert await brands(cache, "a") == ["1"]
    store.products["a"], store.seeded = Item("a", brand="2"), "20270101_000000_00000000"
    await seeded.check()
    assert await brands(cache, "a") == ["2"]


async def test_full_cache_evicts_least_recently_used_record(
    store: RecordingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.cm.item_cache.MAX_ITEMS_CACHED", 2)
    cache = new_cache(store)
    for skus in ("ab", "a", "c", "ac", "b"):
        await brands(cache, skus)
    assert store.requests == [["a", "b"], ["c"], ["b"]]


async def test_cache_holds_all_items_of_the_demo(store: RecordingStore) -> None:
    skus = [str(number) for number in range(67_820)]
    store.products = {sku: Item(sku) for sku in skus}
    cache = new_cache(store)
    for _ in range(2):
        for start in range(0, len(skus), 1000):
            await cache.items(skus[start : start + 1000], 1.0)
    assert sum(map(len, store.requests)) == len(skus)


async def test_cached_records_are_served_while_store_is_unavailable(store: RecordingStore) -> None:
    cache = new_cache(store)
    await brands(cache, "ab")
    store.trouble.fault = Unavailable("down")
    assert await brands(cache, "ba") == ["1", "1"]
    with pytest.raises(Unavailable, match="down"):
        await brands(cache, "abc")


async def test_emptied_store_empties_cache(store: RecordingStore) -> None:
    seeded = SeededVersion("cm", store)
    cache = ItemCache(store, seeded, 3600.0)
    await seeded.check()
    assert await brands(cache, "a") == ["1"]
    store.seeded = None
    with pytest.raises(NotSeeded):
        await seeded.check()
    with pytest.raises(NotSeeded):
        await brands(cache, "a")

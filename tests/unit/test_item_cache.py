"""The item records that cm keeps."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from ecrs.cm.item_cache import ItemCache
from ecrs.domain.entities import Item
from ecrs.rpc.errors import Unavailable
from ecrs.storage.seeded_version import SeededVersion
from tests.fakes import FakeProfiles


@dataclass
class Asked(FakeProfiles):
    """Records the skus of each call; sets `read` before it waits for `gate` to answer."""

    asked: list[list[str]] = field(default_factory=list)
    read: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        self.asked.append(list(skus))
        found = await super().items(skus, timeout_s)
        self.read.set()
        if self.gate:
            await self.gate.wait()
        return found


def records(store: Asked, age_s: float = 3600.0) -> ItemCache:
    return ItemCache(store, SeededVersion("cm", store), age_s)


@pytest.fixture
def store() -> Asked:
    return Asked(products={sku: Item(sku, brand="1") for sku in "abc"})


async def brands(kept: ItemCache, skus: str) -> list[str | None]:
    return [info and info.brand for info in await kept.items(skus, 1.0)]


async def test_a_record_is_read_once_and_an_unknown_item_looked_up_each_time(store: Asked) -> None:
    kept = records(store)
    for _ in range(2):
        assert await brands(kept, "axb") == ["1", None, "1"]
    assert await brands(kept, "ca") == ["1", "1"]
    assert store.asked == [["a", "x", "b"], ["x"], ["c"]]


async def test_a_record_is_read_again_after_its_age_or_a_change(store: Asked) -> None:
    old, changed = records(store, age_s=0.0), records(store)
    for kept in (old, changed):
        await brands(kept, "ab")
    store.products["a"] = Item("a", brand="2")
    changed.forget(["a"])
    assert await brands(old, "a") == await brands(changed, "a") == ["2"]


async def test_a_record_that_changes_while_it_is_read_is_not_kept(store: Asked) -> None:
    kept, store.gate = records(store), asyncio.Event()
    reading = asyncio.create_task(brands(kept, "a"))
    await store.read.wait()
    store.products["a"] = Item("a", brand="2")
    kept.forget(["a"])
    store.gate.set()
    assert await reading == ["1"]  # it was asked for before the change
    assert await brands(kept, "a") == ["2"]


async def test_another_bundle_empties_the_cache(store: Asked) -> None:
    seeded = SeededVersion("cm", store)
    kept = ItemCache(store, seeded, 3600.0)
    await seeded.check()
    assert await brands(kept, "a") == ["1"]
    store.products["a"], store.seeded = Item("a", brand="2"), "20270101_000000_00000000"
    await seeded.check()
    assert await brands(kept, "a") == ["2"]


async def test_a_full_cache_forgets_the_record_used_longest_ago(
    store: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.cm.item_cache.MAX_ITEMS_CACHED", 2)
    kept = records(store)
    for skus in ("ab", "a", "c", "ac", "b"):
        await brands(kept, skus)
    assert store.asked == [["a", "b"], ["c"], ["b"]]


async def test_all_items_of_the_demo_are_kept(store: Asked) -> None:
    skus = [str(number) for number in range(67_820)]
    store.products = {sku: Item(sku) for sku in skus}
    kept = records(store)
    for _ in range(2):
        for start in range(0, len(skus), 1000):
            await kept.items(skus[start : start + 1000], 1.0)
    assert sum(map(len, store.asked)) == len(skus)


async def test_kept_records_are_answered_while_the_store_is_away(store: Asked) -> None:
    kept = records(store)
    await brands(kept, "ab")
    store.trouble.fault = Unavailable("away")
    assert await brands(kept, "ba") == ["1", "1"]
    with pytest.raises(Unavailable, match="away"):
        await brands(kept, "abc")

"""What cm keeps of the records it has read."""

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
    """Remembers what it was asked for; has `read` a while before `gate` lets it answer."""

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
    return [info and info.brand for info in await kept.of(skus, 1.0)]


async def test_a_record_is_read_once_and_an_unknown_one_each_time(store: Asked) -> None:
    kept = records(store)
    for _ in range(2):
        assert await brands(kept, "axb") == ["1", None, "1"]
    assert await brands(kept, "ca") == ["1", "1"]
    assert store.asked == [["a", "x", "b"], ["x"], ["c"]]


async def test_a_record_is_read_again_past_its_age_or_once_it_has_changed(store: Asked) -> None:
    old, changed = records(store, age_s=0.0), records(store)
    for kept in (old, changed):
        await brands(kept, "ab")
    store.products["a"] = Item("a", brand="2")
    changed.forget(["a"])
    assert await brands(old, "a") == await brands(changed, "a") == ["2"]


async def test_what_changes_while_it_is_read_is_not_kept(store: Asked) -> None:
    kept, store.gate = records(store), asyncio.Event()
    reading = asyncio.create_task(brands(kept, "a"))
    await store.read.wait()
    store.products["a"] = Item("a", brand="2")
    kept.forget(["a"])
    store.gate.set()
    assert await reading == ["1"]  # it was asked for before the change
    assert await brands(kept, "a") == ["2"]


async def test_another_bundle_is_read_anew(store: Asked) -> None:
    seeded = SeededVersion("cm", store)
    kept = ItemCache(store, seeded, 3600.0)
    await seeded.check()
    assert await brands(kept, "a") == ["1"]
    store.products["a"], store.seeded = Item("a", brand="2"), "20270101_000000_00000000"
    await seeded.check()
    assert await brands(kept, "a") == ["2"]


async def test_so_many_records_are_kept_and_no_more(store: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecrs.cm.item_cache.MAX_ITEMS_CACHED", 2)
    kept = records(store)
    for skus in ("ab", "c", "c", "ab"):
        await brands(kept, skus)
    assert store.asked == [["a", "b"], ["c"], ["a", "b"]]


async def test_a_store_that_is_away_is_so_only_for_what_was_not_read(store: Asked) -> None:
    kept = records(store)
    await brands(kept, "ab")
    store.trouble.fault = Unavailable("away")
    assert await brands(kept, "ba") == ["1", "1"]
    with pytest.raises(Unavailable, match="away"):
        await brands(kept, "abc")

"""The gateway's fallbacks follow the journal of item changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.entities import Item
from ecrs.gateway import journal_reader
from ecrs.gateway.fallbacks import FallbackCatalogue
from ecrs.gateway.journal_reader import JournalReader
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.supervision import in_background
from ecrs.storage.item_journal import ChangeKind, ItemChange
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from tests.eventually import eventually

POPULAR = [ItemInfo(sku_id=sku, brand="bundle") for sku in "abcd"]


def popular(fallbacks: FallbackCatalogue) -> list[str]:
    return list(fallbacks.popular(UserInfo(), 9, new_only=False).skus)


def remember(fallbacks: FallbackCatalogue, *skus: str) -> None:
    fallbacks.remember({sku: ItemInfo(sku_id=sku, brand="read") for sku in skus})


@pytest.mark.parametrize("read", [False, True], ids=["records of the bundle", "records read from cm"])
def test_changed_items_are_left_out_or_have_their_new_record(read: bool) -> None:
    fallbacks = FallbackCatalogue(POPULAR, "v0")
    if read:
        remember(fallbacks, "a", "b", "c", "d")
    fallbacks.apply(
        [
            ItemChange("a", ChangeKind.REMOVED),
            ItemChange("b", ChangeKind.STOCK, out_of_stock=True),
            ItemChange.put(Item("c", "changed")),
            ItemChange("unknown", ChangeKind.STOCK, out_of_stock=True),
        ]
    )
    assert popular(fallbacks) == ["c", "d"]
    records = fallbacks.records(["a", "b", "c", "d", "unknown"])
    assert {sku: (item.brand, item.out_of_stock) for sku, item in records.items()} == {
        "b": ("read" if read else "bundle", True),
        "c": ("changed", False),
        "d": ("read" if read else "bundle", False),
    }
    fallbacks.apply([ItemChange.put(Item("a")), ItemChange("b", ChangeKind.STOCK, out_of_stock=False)])
    assert popular(fallbacks) == ["a", "b", "c", "d"]
    assert POPULAR[1] == ItemInfo(sku_id="b", brand="bundle")  # a record may be part of an answer


def test_a_record_that_cm_may_have_cached_before_the_change_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stale_s, kept in ((60.0, False), (0.0, True)):
        monkeypatch.setattr("ecrs.gateway.fallbacks.STALE_S", stale_s)
        fallbacks = FallbackCatalogue([], "v0")
        fallbacks.apply([ItemChange("a", ChangeKind.REMOVED)])
        remember(fallbacks, "a", "b")
        assert set(fallbacks.records(["a", "b"])) == ({"a", "b"} if kept else {"b"})


def test_memory_does_not_grow_with_the_number_of_changes() -> None:
    fallbacks = FallbackCatalogue(POPULAR, "v0")
    for start in range(0, 100_000, 1000):
        fallbacks.apply([ItemChange(str(sku), ChangeKind.REMOVED) for sku in range(start, start + 1000)])
    assert len(fallbacks._changed) + len(fallbacks._read) + len(fallbacks._popular) < 50_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def journal(directory: Path) -> Iterator[SqliteItemJournal]:
    directory.mkdir()
    with SqliteItemJournal(directory / "items.sqlite") as journal:
        yield journal


async def test_the_reader_passes_former_and_new_changes_and_keeps_them_without_the_journal(
    journal: SqliteItemJournal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_reader, "READ_S", 0.01)
    fallbacks = FallbackCatalogue(POPULAR, "v0")
    await journal.remove([str(number) for number in range(2500)] + ["a"], 5.0)
    with SqliteItemJournal(directory / "items.sqlite") as other:
        reader = JournalReader(other, fallbacks.apply)
        monkeypatch.setattr(journal_reader, "CHECK_TIMEOUT_S", 0.01)
        with pytest.raises(Unavailable, match="has not been read yet"):
            await reader.check()

        async def is_healthy() -> bool:
            try:
                await reader.check()
            except Unavailable:
                return False
            return True

        async def b_is_left_out() -> bool:
            return popular(fallbacks) == ["c", "d"]

        async with in_background("test", "item_journal", reader.follow):
            await eventually(is_healthy)
            assert popular(fallbacks) == ["b", "c", "d"]
            await journal.set_stock(["b"], in_stock=False, timeout_s=5.0)
            await eventually(b_is_left_out)
            monkeypatch.setattr(other, "_path", directory / "nowhere" / "items.sqlite")
            other._thread.submit(other._close).result()

            async def is_away() -> bool:
                return not await is_healthy()

            await eventually(is_away)
            assert popular(fallbacks) == ["c", "d"]

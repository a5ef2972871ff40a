"""The Milvus seed applies the journal of item changes with vectors of the bundle's own item tower."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.domain.entities import Item
from ecrs.rpc.errors import Unavailable
from ecrs.serving.inprocess import InProcessModel
from ecrs.serving.item_embedder import ItemEmbedder
from ecrs.storage.item_journal import START
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from ecrs_seed.changed_vectors import ChangedVectors
from tests.fakes import FakeModel

ADDED, CHANGED = Item("added", "3456", "6980", "70"), Item("1", "3456", "6980", "71")


class FakeCollection:
    """The client methods that change a collection's rows."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.filters: list[str] = []

    def upsert(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.rows |= {row["sku"]: row for row in rows}

    def delete(self, name: str, filter: str) -> None:  # noqa: A002 - the client's own name
        self.filters.append(filter)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteItemJournal]:
    with SqliteItemJournal(tmp_path / "items.sqlite") as journal:
        yield journal


async def test_the_seed_waits_for_the_item_tower(tiny: Bundle, journal: SqliteItemJournal) -> None:
    model = InProcessModel(tiny.path / "item_tower")
    late = FakeModel(model.signature, model.run)
    late.trouble.fault = Unavailable("item_tower at serving:9998 serves version 1, expected 2")

    async def open_tower() -> ItemEmbedder:
        return ItemEmbedder(tiny, late)

    await journal.put([ADDED], 5.0)
    collection = FakeCollection()
    with pytest.raises(Unavailable, match="serves version 1, expected 2"):
        await ChangedVectors(tiny, journal, open_tower).apply(collection, "c", START)  # type: ignore[arg-type]
    waiting = asyncio.create_task(
        ChangedVectors(tiny, journal, open_tower, wait_s=60.0).apply(collection, "c", START)  # type: ignore[arg-type]
    )
    await asyncio.sleep(0)
    late.trouble.fault = None
    await waiting
    assert list(collection.rows) == ["added"]


async def test_changes_are_applied_with_the_bundles_own_tower(
    tiny: Bundle, journal: SqliteItemJournal
) -> None:
    model = InProcessModel(tiny.path / "item_tower")
    opened = []

    async def open_tower() -> ItemEmbedder:
        opened.append(tiny.version)
        return ItemEmbedder(tiny, model)

    changes, collection = ChangedVectors(tiny, journal, open_tower), FakeCollection()
    await journal.set_stock(["12048"], in_stock=False, timeout_s=5.0)
    await journal.remove(["99654", 'it\'s "odd"'], 5.0)
    position = await changes.apply(collection, "c", START)  # type: ignore[arg-type]
    assert (collection.filters, collection.rows, opened) == (
        ['sku in ["99654","it\'s \\"odd\\""]'], {}, [],
    )  # fmt: skip
    await journal.put([ADDED, CHANGED], 5.0)
    position = await changes.apply(collection, "c", position)  # type: ignore[arg-type]
    assert len(collection.filters) == len(opened) == 1
    expected = model.run(tiny.encoder.items([ADDED, CHANGED]))
    np.testing.assert_allclose([collection.rows[sku]["vector"] for sku in ("added", "1")], expected)
    category = tiny.encoder.vocabularies["category"].encode("70")
    assert [collection.rows[sku]["cold_start_category"] for sku in ("added", "1")] == [category, 0]
    assert await changes.apply(collection, "c", position) == position  # type: ignore[arg-type]

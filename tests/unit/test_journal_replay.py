"""recall replays the journal of item changes once, with the bundle's own item tower."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.domain.entities import Item
from ecrs.recall import journal_replay
from ecrs.recall.journal_replay import JournalReplay
from ecrs.recall.vector_updates import VectorUpdater
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import Unavailable
from ecrs.serving.inprocess import InProcessModel
from ecrs.serving.item_embedder import ItemEmbedder
from ecrs.storage.faiss_vectors import FaissVectors
from ecrs.storage.sqlite_item_journal import SqliteItemJournal

ADDED = Item("added", "3456", "6980", "70")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteItemJournal]:
    with SqliteItemJournal(tmp_path / "items.sqlite") as journal:
        yield journal


@pytest.fixture
def vectors(tiny: Bundle) -> Iterator[FaissVectors]:
    with FaissVectors.load(tiny) as vectors:
        yield vectors


@pytest.fixture
def model(tiny: Bundle) -> InProcessModel:
    return InProcessModel(tiny.path / "item_tower")


@pytest.fixture
def updates(tiny: Bundle, vectors: FaissVectors, model: InProcessModel) -> VectorUpdater:
    return VectorUpdater(tiny, model.signature.width, vectors)


def replay_of(
    journal: SqliteItemJournal, updates: VectorUpdater, tiny: Bundle, model: InProcessModel
) -> JournalReplay:
    async def open_tower() -> ItemEmbedder:
        return ItemEmbedder(tiny, model)

    return JournalReplay(journal, updates, open_tower)


async def test_removed_items_have_no_vector_and_added_ones_that_of_the_tower(
    tiny: Bundle, journal: SqliteItemJournal, updates: VectorUpdater, vectors: FaissVectors,
    model: InProcessModel, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(journal_replay, "PAGE", 2)
    await journal.remove(["1", "99654", "never there"], 5.0)
    await journal.set_stock(["12048"], in_stock=False, timeout_s=5.0)
    await journal.put([ADDED, Item("99654", "3456", "6980", "70")], 5.0)
    await replay_of(journal, updates, tiny, model).check()
    assert await vectors.count(5.0) == tiny.count("product_vectors.txt")  # one less, one more
    added, changed = model.run(tiny.encoder.items([ADDED, Item("99654", "3456", "6980", "70")]))
    for sku, vector in (("added", added), ("99654", changed)):
        nearest = await vectors.search(vector, 3, 5.0)
        assert dict(zip(nearest.skus, nearest.distance, strict=True))[sku] == pytest.approx(0, abs=1e-5)
    everything = await vectors.search(added, 1000, 5.0)
    assert "1" not in everything.skus
    assert "12048" in everything.skus
    assert (await vectors.search_cold_start(added, 9, 5.0)).skus == ["added"]


async def test_a_replay_without_the_journal_is_completed_later(
    tiny: Bundle, tmp_path: Path, updates: VectorUpdater, vectors: FaissVectors, model: InProcessModel
) -> None:
    directory = tmp_path / "not yet"
    with SqliteItemJournal(directory / "items.sqlite") as journal:
        replay = replay_of(journal, updates, tiny, model)
        with pytest.raises(Unavailable, match="cannot be used"):
            await replay.check()
        directory.mkdir()
        await journal.remove(["1"], 5.0)
        await replay.check()
        assert await vectors.count(5.0) == tiny.count("product_vectors.txt") - 1
        await journal.remove(["12048"], 5.0)
        await replay.check()  # cm sends later changes
        assert await vectors.count(5.0) == tiny.count("product_vectors.txt") - 1


async def test_an_older_change_never_replaces_a_newer_one_from_cm(
    tiny: Bundle, journal: SqliteItemJournal, updates: VectorUpdater, vectors: FaissVectors,
    model: InProcessModel, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(journal_replay, "PAGE", 10)
    await journal.put([Item(f"added-{number}") for number in range(50)], 5.0)

    async def remove_as_cm_does() -> None:
        for number in range(50):
            await journal.remove([f"added-{number}"], 5.0)
            deadline = Deadline.after(None, default_s=5.0)
            await updates.remove(tiny.version, [f"added-{number}"], deadline)

    await asyncio.gather(replay_of(journal, updates, tiny, model).check(), remove_as_cm_does())
    found = await vectors.search(np.zeros(model.signature.width, np.float32), 1000, 5.0)
    assert not [sku for sku in found.skus if sku.startswith("added")]

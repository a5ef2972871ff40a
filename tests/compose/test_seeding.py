"""Seeds a real Milvus repeatedly and with a failure, in a separate database beside the live one."""

from pathlib import Path

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.domain.entities import Item
from ecrs.serving.inprocess import InProcessModel
from ecrs.serving.item_embedder import ItemEmbedder
from ecrs.settings import VectorSettings
from ecrs.storage.milvus_vectors import ALIAS, MilvusVectors
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from ecrs.storage.vectors import read_vectors
from ecrs_seed import milvus as seed
from ecrs_seed.changed_vectors import ChangedVectors
from tests.compose.conftest import Stack
from tests.eventually import eventually
from tests.milvus import database
from tests.milvus import seed as seed_collection
from tests.tiny import as_version


@pytest.fixture
async def settings(stack: Stack) -> VectorSettings:
    address = f"milvus://{stack.address('milvus')}:19530"
    return await database(address, stack.secret("milvus_password"), "seeding")


async def test_seeding_again_writes_nothing(settings: VectorSettings, tiny: Bundle) -> None:
    client = await seed.connect(settings, wait_s=60)
    await seed_collection(tiny, client)
    written: list[int] = []
    assert (await seed_collection(tiny, client, written.append)).already_there
    assert written == []


async def test_item_changes_are_in_the_new_collection(
    settings: VectorSettings, tiny: Bundle, tmp_path: Path
) -> None:
    async def open_tower() -> ItemEmbedder:
        return ItemEmbedder(tiny, InProcessModel(tiny.path / "item_tower"))

    client = await seed.connect(settings, wait_s=60)
    await seed_collection(tiny, client)
    newer = as_version(tiny, "20991231_000002_ffffffff")
    with SqliteItemJournal(tmp_path / "items.sqlite") as journal:
        await journal.put([Item("added", "3456", "6980", "70")], 5.0)
        await journal.remove(["12048"], 5.0)
        await seed.seed_milvus(newer, client, ChangedVectors(newer, journal, open_tower))
    async with MilvusVectors.connect(settings) as store:
        assert await store.version(5.0) == newer.version

        async def changes_are_visible() -> bool:
            found = (await store.search(np.zeros(tiny.manifest.dim, np.float32), 1000, 5.0)).skus
            return "added" in found and "12048" not in found

        await eventually(changes_are_visible)
    await seed_collection(tiny, client)


async def test_a_failed_seed_leaves_the_old_collection_serving(
    settings: VectorSettings, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await seed.connect(settings, wait_s=60)
    await seed_collection(tiny, client)
    _, vectors = read_vectors(tiny.lines("product_vectors.txt"), tiny.count("product_vectors.txt"))
    newer = as_version(tiny)
    monkeypatch.setattr(seed, "MIN_INDEX_RECALL", 1.5)  # no index can reach a recall above 1
    with pytest.raises(seed.SeedError, match="recall@100"):
        await seed_collection(newer, client)
    async with MilvusVectors.connect(settings) as store:
        assert await store.version(5.0) == tiny.version
        assert len(await store.search(vectors[0], 10, 5.0)) == 10
    monkeypatch.undo()
    await seed_collection(newer, client)
    # list_aliases would not work here: in Milvus 2.3.5 it looks in the default database only.
    assert client.describe_collection(ALIAS)["collection_name"] == "products_20991231_000000_ffffffff"
    assert "products_" + tiny.version in client.list_collections()
    newest = as_version(tiny, "20991231_000001_ffffffff")
    await seed_collection(newest, client)
    kept = {name for name in client.list_collections() if name.startswith("products_")}
    assert kept == {"products_" + newer.version, "products_" + newest.version}

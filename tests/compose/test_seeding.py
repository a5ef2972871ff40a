"""Seeds a real Milvus repeatedly and with a failure, in a separate database beside the live one."""

import pytest

from ecrs.bundle import Bundle
from ecrs.settings import VectorSettings
from ecrs.storage.milvus_vectors import ALIAS, MilvusVectors
from ecrs.storage.vectors import read_vectors
from ecrs_seed import milvus as seed
from tests.compose.conftest import Stack
from tests.milvus import database
from tests.tiny import as_version


@pytest.fixture
async def settings(stack: Stack) -> VectorSettings:
    address = f"milvus://{stack.address('milvus')}:19530"
    return await database(address, stack.secret("milvus_password"), "seeding")


async def test_seeding_again_writes_nothing(settings: VectorSettings, tiny: Bundle) -> None:
    client = await seed.connect(settings, wait_s=60)
    seed.seed_milvus(tiny, client)
    written: list[int] = []
    assert seed.seed_milvus(tiny, client, advance=written.append).already_there
    assert written == []


async def test_a_failed_seed_leaves_the_old_collection_serving(
    settings: VectorSettings, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await seed.connect(settings, wait_s=60)
    seed.seed_milvus(tiny, client)
    _, vectors = read_vectors(tiny.lines("product_vectors.txt"), tiny.count("product_vectors.txt"))
    newer = as_version(tiny)
    monkeypatch.setattr(seed, "MIN_INDEX_RECALL", 1.5)  # no index can reach a recall above 1
    with pytest.raises(seed.SeedError, match="recall@100"):
        seed.seed_milvus(newer, client)
    async with MilvusVectors.connect(settings) as store:
        assert await store.version(5.0) == tiny.version
        assert len(await store.search(vectors[0], 10, 5.0)) == 10
    monkeypatch.undo()
    seed.seed_milvus(newer, client)
    # list_aliases would not work here: in Milvus 2.3.5 it looks in the default database only.
    assert client.describe_collection(ALIAS)["collection_name"] == "products_20991231_000000_ffffffff"
    assert "products_" + tiny.version in client.list_collections()
    newest = as_version(tiny, "20991231_000001_ffffffff")
    seed.seed_milvus(newest, client)
    kept = {name for name in client.list_collections() if name.startswith("products_")}
    assert kept == {"products_" + newer.version, "products_" + newest.version}

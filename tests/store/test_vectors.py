"""The vector store: brute force, faiss, and Milvus where there is one."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.kit.errors import Unavailable
from ecrs.kit.settings import VectorSettings
from ecrs.recall import faiss_vectors
from ecrs.recall.faiss_vectors import FaissVectors
from ecrs.recall.milvus_vectors import MilvusVectors
from ecrs.recall.vectors import VectorStore, read_vectors
from ecrs_seed import milvus as seed
from tests.fakes import FakeVectors
from tests.store.conftest import configured, milvus_database


def tiny_vectors(bundle: Bundle) -> tuple[list[str], np.ndarray]:
    return read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))


@pytest.fixture(params=["fake", "faiss", *configured("ECRS_TEST_MILVUS")])
async def vectors(request: pytest.FixtureRequest, tiny: Bundle) -> AsyncIterator[VectorStore]:
    """A store that holds the tiny bundle's vectors."""
    if request.param == "fake":
        yield FakeVectors(*tiny_vectors(tiny), held=tiny.version)
    elif request.param == "faiss":
        with FaissVectors.load(tiny) as store:
            yield store
    else:
        settings = await milvus_database()
        seed.seed_milvus(tiny, await seed.connect(settings, wait_s=60))
        async with MilvusVectors.connect(settings) as milvus:
            yield milvus


async def test_an_items_own_vector_finds_it_first_at_distance_0(vectors: VectorStore, tiny: Bundle) -> None:
    skus, table = tiny_vectors(tiny)
    (nearest, *_) = await vectors.search(table[7], 10, 5.0)
    assert nearest.sku == skus[7]
    assert nearest.distance == pytest.approx(0.0, abs=1e-5)


async def test_neighbours_are_brute_forces_nearest_first_by_squared_l2(
    vectors: VectorStore, tiny: Bundle
) -> None:
    skus, table = tiny_vectors(tiny)
    query = table[:5].mean(axis=0)
    distances = np.square(table - query).sum(axis=1)
    found = await vectors.search(query, 100, 5.0)
    assert [n.distance for n in found] == pytest.approx(np.sort(distances)[:100].tolist(), abs=1e-5)
    assert [n.distance for n in found] == pytest.approx(
        [float(distances[skus.index(n.sku)]) for n in found], abs=1e-5
    )
    assert len({n.sku for n in found}) == 100


async def test_asking_for_more_than_there_are_gives_all(vectors: VectorStore, tiny: Bundle) -> None:
    skus, table = tiny_vectors(tiny)
    found = await vectors.search(table[0], 1000, 5.0)
    assert sorted(n.sku for n in found) == sorted(skus)


async def test_the_store_says_which_bundle_it_holds_and_how_much(vectors: VectorStore, tiny: Bundle) -> None:
    assert await vectors.version(5.0) == tiny.version
    assert await vectors.count(5.0) == tiny.count("product_vectors.txt")


@pytest.mark.parametrize("spread", [0.1, 1.0], ids=["clustered", "shapeless"])
async def test_a_large_catalogues_index_finds_nearly_all_neighbours(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_vectors, "EXACT_UP_TO", 1_000)
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(300, 32)).repeat(100, axis=0)
    table = (centres + spread * rng.normal(size=centres.shape)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    with FaissVectors("v", [str(n) for n in range(len(table))], table) as store:
        recall = []
        for query in table[3::1000]:
            true = np.argsort(np.square(table - query).sum(axis=1))[:100]
            found = await store.search(query, 100, 5.0)
            recall.append(len({n.sku for n in found} & {str(n) for n in true}) / 100)
    assert np.mean(recall) >= 0.985  # other queries than those it was tuned on


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["1:[0.1, 0.2]", "2:[0.1]"], "product_vectors.txt:2"),
        (["1:[0.1, 0.2]", "2:[0.1, oops]"], "product_vectors.txt:2"),
        (["1:[0.1, 0.2]"], "1 lines, expected 2"),
        (["1:[0.1, 0.2]", "2:[0.1, 0.2]", "3:[0.1, 0.2]"], "product_vectors.txt:3"),
        (["1:[0.1, 0.2]", "2:[0.1, 1e60]"], "product_vectors.txt:2: a value is not finite"),
        (["no vector", "2:[0.1, 0.2]"], "product_vectors.txt:1"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_bad_vector_line_is_named(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_vectors(iter(lines), 2)


async def test_a_milvus_that_is_away_is_unavailable() -> None:
    async with MilvusVectors.connect(VectorSettings(vectors="milvus://127.0.0.1:1")) as store:
        with pytest.raises(Unavailable):
            await store.version(2.0)
        with pytest.raises(Unavailable):
            await store.search(np.zeros(32, np.float32), 5, 2.0)

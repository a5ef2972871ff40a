"""The vector store: brute force, faiss and, if configured, Milvus."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from ecrs.bundle import Bundle, BundleError
from ecrs.rpc.errors import Unavailable
from ecrs.settings import VectorSettings
from ecrs.storage import faiss_vectors
from ecrs.storage.faiss_vectors import FaissVectors
from ecrs.storage.milvus_vectors import MilvusVectors
from ecrs.storage.vectors import Neighbours, VectorStore, read_vectors
from ecrs_seed import milvus as seed
from tests.eventually import eventually
from tests.fakes import FakeVectors
from tests.milvus import seed as seed_collection
from tests.store.conftest import configured, milvus_database


def tiny_vectors(bundle: Bundle) -> tuple[list[str], np.ndarray]:
    return read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))


@pytest.fixture(params=["fake", "faiss", *configured("ECRS_TEST_MILVUS")])
async def vectors(request: pytest.FixtureRequest, tiny: Bundle) -> AsyncIterator[VectorStore]:
    """A store that holds the tiny bundle's vectors."""
    if request.param == "fake":
        yield FakeVectors(*tiny_vectors(tiny), bundle_version=tiny.version)
    elif request.param == "faiss":
        with FaissVectors.load(tiny) as store:
            yield store
    else:
        settings = await milvus_database()
        await seed_collection(tiny, await seed.connect(settings, wait_s=60))
        async with MilvusVectors.connect(settings) as milvus:
            yield milvus
            await restore(milvus, tiny)


async def restore(vectors: VectorStore, tiny: Bundle) -> None:
    """Restore the tiny bundle's vectors in a store that outlives the test, faster than seeding it again."""
    skus, table = tiny_vectors(tiny)
    present = set((await vectors.search(table[0], 1000, 5.0)).skus)
    if added := present - set(skus):
        await vectors.remove(tiny.version, sorted(added), 5.0)
    await vectors.upsert(tiny.version, skus, table, [0] * len(skus), 5.0)

    async def restored() -> bool:
        neighbours = await vectors.search(table[7], 1000, 5.0)
        return len(neighbours) == len(skus) and neighbours.distance[neighbours.skus.index(skus[7])] < 1e-5

    await eventually(restored)


async def test_item_is_nearest_to_its_own_vector_at_distance_0(vectors: VectorStore, tiny: Bundle) -> None:
    skus, table = tiny_vectors(tiny)
    nearest = await vectors.search(table[7], 10, 5.0)
    assert nearest.skus[0] == skus[7]
    assert nearest.distance[0] == pytest.approx(0.0, abs=1e-5)


async def test_neighbours_match_brute_force_by_squared_l2(vectors: VectorStore, tiny: Bundle) -> None:
    skus, table = tiny_vectors(tiny)
    query = table[:5].mean(axis=0)
    distances = np.square(table - query).sum(axis=1)
    neighbours = await vectors.search(query, 100, 5.0)
    assert neighbours.distance == pytest.approx(np.sort(distances)[:100], abs=1e-5)
    assert neighbours.distance == pytest.approx(
        [float(distances[skus.index(sku)]) for sku in neighbours.skus], abs=1e-5
    )
    assert len(set(neighbours.skus)) == 100


async def test_search_for_more_than_exist_returns_all(vectors: VectorStore, tiny: Bundle) -> None:
    skus, table = tiny_vectors(tiny)
    neighbours = await vectors.search(table[0], 1000, 5.0)
    assert sorted(neighbours.skus) == sorted(skus)


async def test_store_returns_version_and_count(vectors: VectorStore, tiny: Bundle) -> None:
    assert await vectors.version(5.0) == tiny.version
    assert await vectors.count(5.0) == tiny.count("product_vectors.txt")


async def test_added_item_is_found_within_a_second(vectors: VectorStore, tiny: Bundle) -> None:
    _, table = tiny_vectors(tiny)
    added = np.stack([-table[7], -table[8]])
    await vectors.upsert(tiny.version, ["brand-new", 'it\'s "new"'], added, [3, 0], 5.0)
    await assert_found_within_a_second(vectors, -table[7], "brand-new")
    await assert_found_within_a_second(vectors, -table[8], 'it\'s "new"')
    assert await vectors.count(5.0) == len(table) + 2


async def test_item_with_replaced_vector_is_found_only_at_the_new_one(
    vectors: VectorStore, tiny: Bundle
) -> None:
    skus, table = tiny_vectors(tiny)
    for vector in (-table[7], -table[9]):
        await vectors.upsert(tiny.version, [skus[7]], vector[None], [0], 5.0)
        await assert_found_within_a_second(vectors, vector, skus[7])
    neighbours = await vectors.search(table[7], 1000, 5.0)
    assert len(neighbours) == len(set(neighbours.skus)) == len(table)
    assert neighbours.distance[neighbours.skus.index(skus[7])] == pytest.approx(
        float(np.square(table[7] + table[9]).sum()), abs=1e-5
    )


async def test_removed_item_is_not_found_until_it_is_added_again(vectors: VectorStore, tiny: Bundle) -> None:
    skus, table = tiny_vectors(tiny)
    await vectors.upsert(tiny.version, ['it\'s "new"'], table[7:8], [1], 5.0)
    await vectors.remove(tiny.version, [skus[7], 'it\'s "new"', "never there"], 5.0)

    async def gone() -> bool:
        neighbours = await vectors.search(table[7], 1000, 5.0)
        return sorted(neighbours.skus) == sorted(set(skus) - {skus[7]})

    await eventually(gone, limit_s=1.0)
    await vectors.upsert(tiny.version, [skus[7]], table[7:8], [0], 5.0)
    await assert_found_within_a_second(vectors, table[7], skus[7])


async def test_cold_start_search_finds_only_cold_start_items(vectors: VectorStore, tiny: Bundle) -> None:
    skus, table = tiny_vectors(tiny)
    assert len(await vectors.search_cold_start(table[7], 10, 5.0)) == 0
    await vectors.upsert(tiny.version, ["far", "near", skus[5]], table[[8, 7, 6]], [3, 4, 0], 5.0)

    async def search() -> list[tuple[str, int]]:
        return cold_start_items(await vectors.search_cold_start(table[7], 10, 5.0))

    async def both_are_found() -> bool:
        return await search() == [("near", 4), ("far", 3)]

    async def only_far_is_left() -> bool:
        return await search() == [("far", 9)]

    await eventually(both_are_found, limit_s=1.0)
    await vectors.remove(tiny.version, ["near"], 5.0)
    await vectors.upsert(tiny.version, ["far"], table[7:8], [9], 5.0)
    await eventually(only_far_is_left, limit_s=1.0)


async def test_vectors_of_another_version_are_refused(vectors: VectorStore, tiny: Bundle) -> None:
    skus, table = tiny_vectors(tiny)
    with pytest.raises(Unavailable, match="versions differ"):
        await vectors.upsert("20200101_000000_00000000", ["new"], table[:1], [1], 5.0)
    with pytest.raises(Unavailable, match="versions differ"):
        await vectors.remove("20200101_000000_00000000", skus[:1], 5.0)
    assert await vectors.count(5.0) == len(table)


async def assert_found_within_a_second(vectors: VectorStore, vector: np.ndarray, sku: str) -> None:
    """Assert that within a second `sku` is the nearest to `vector`, at distance 0."""

    async def is_nearest() -> bool:
        nearest = await vectors.search(vector, 3, 5.0)
        return nearest.skus[0] == sku and abs(nearest.distance[0]) < 1e-5

    await eventually(is_nearest, limit_s=1.0)


def cold_start_items(neighbours: Neighbours) -> list[tuple[str, int]]:
    return list(zip(neighbours.skus, neighbours.cold_start_category.tolist(), strict=True))


@pytest.mark.parametrize("spread", [0.1, 1.0], ids=["clustered", "unclustered"])
async def test_index_of_a_large_catalogue_finds_nearly_all_neighbours(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_vectors, "EXACT_INDEX_LIMIT", 1_000)
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(300, 32)).repeat(100, axis=0)
    table = (centres + spread * rng.normal(size=centres.shape)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    with FaissVectors("v", [str(n) for n in range(len(table))], table) as store:
        recall = []
        for query in table[3::1000]:
            true = np.argsort(np.square(table - query).sum(axis=1))[:100]
            neighbours = await store.search(query, 100, 5.0)
            recall.append(len(set(neighbours.skus) & {str(n) for n in true}) / 100)
        assert np.mean(recall) >= 0.985  # for other queries than those that the index was tuned on

        await store.upsert("v", ["new", "7"], np.stack([-table[7], -table[8]]), [1, 0], 5.0)
        await store.remove("v", ["9"], 5.0)
        for vector, sku in ((-table[7], "new"), (-table[8], "7")):
            await assert_found_within_a_second(store, vector, sku)
        for gone in (7, 9):
            assert str(gone) not in (await store.search(table[gone], 100, 5.0)).skus


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
def test_malformed_vector_line_is_reported(lines: list[str], reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        read_vectors(iter(lines), 2)


async def test_unreachable_milvus_is_unavailable() -> None:
    async with MilvusVectors.connect(VectorSettings(vectors="milvus://127.0.0.1:1")) as store:
        with pytest.raises(Unavailable):
            await store.version(2.0)
        with pytest.raises(Unavailable):
            await store.search(np.zeros(32, np.float32), 5, 2.0)

"""The Milvus seed's choice of index, its checks, and which collections it keeps."""

from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from ecrs.storage.milvus_vectors import ALIAS
from ecrs.storage.vectors import EXACT_INDEX_LIMIT
from ecrs_seed import milvus as seed


class FakeIndex:
    """The client methods that the checks use; reports `count` vectors and searches the first `searched`."""

    def __init__(self, vectors: np.ndarray, count: int, searched: int) -> None:
        self._vectors, self._count = vectors[:searched], count

    def query(self, name: str, **options: Any) -> list[dict[str, int]]:
        return [{"count(*)": self._count}]

    def search(self, name: str, data: list[np.ndarray], limit: int, **options: Any) -> list[Any]:
        distances = (np.sort(np.square(self._vectors - vector).sum(axis=1))[:limit] for vector in data)
        return [[{"distance": distance} for distance in row.tolist()] for row in distances]


@pytest.fixture
def vectors() -> np.ndarray:
    table = np.random.default_rng(1).normal(size=(2_000, 32)).astype(np.float32)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def test_index_that_finds_all_neighbours_passes(vectors: np.ndarray) -> None:
    skus = [str(number) for number in range(len(vectors))]
    seed._check(FakeIndex(vectors, len(vectors), len(vectors)), "c", skus, vectors)  # type: ignore[arg-type]


def test_index_that_misses_too_many_neighbours_is_refused(vectors: np.ndarray) -> None:
    skus = [str(number) for number in range(len(vectors))]
    with pytest.raises(seed.SeedError, match=r"c: recall@100 against brute force is 0\.9[67]"):
        seed._check(FakeIndex(vectors, len(vectors), 1_930), "c", skus, vectors)  # type: ignore[arg-type]


def test_collection_that_lost_vectors_is_refused(vectors: np.ndarray) -> None:
    skus = [str(number) for number in range(len(vectors))]
    with pytest.raises(seed.SeedError, match=r"1,999 vectors, 2,000 were written"):
        seed._check(FakeIndex(vectors, 1_999, len(vectors)), "c", skus, vectors)  # type: ignore[arg-type]


@pytest.mark.parametrize(("products", "kind"), [(EXACT_INDEX_LIMIT, "FLAT"), (EXACT_INDEX_LIMIT + 1, "HNSW")])
def test_index_type_follows_catalogue_size(products: int, kind: str) -> None:
    (index,) = seed.index_for(MilvusClient, products)
    assert index.to_dict()["index_type"] == kind


class FakeCollections:
    """The client methods that move the alias: names of collections, and the one that the alias names."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.live: str | None = None

    def describe_collection(self, name: str) -> dict[str, str]:
        assert name == ALIAS
        if self.live is None:
            raise MilvusException(code=seed.NOT_FOUND, message="no such collection")
        return {"collection_name": self.live}

    def create_alias(self, name: str, alias: str) -> None:
        assert self.live is None
        self.live = name

    def alter_alias(self, name: str, alias: str) -> None:
        assert self.live is not None
        self.live = name

    def list_collections(self) -> list[str]:
        return sorted(self.names)

    def drop_collection(self, name: str) -> None:
        assert name != self.live
        self.names.remove(name)


def test_previous_live_collection_is_kept_and_older_ones_are_dropped() -> None:
    client = FakeCollections("of_somebody_else", "products_0")  # the latter from a failed seed
    for version, kept in (("1", {"0", "1"}), ("2", {"1", "2"}), ("3", {"2", "3"}), ("2", {"2", "3"})):
        client.names.add(f"products_{version}")
        seed._go_live(client, f"products_{version}")  # type: ignore[arg-type]
        assert client.live == f"products_{version}"
        assert client.names == {"of_somebody_else", *(f"products_{name}" for name in kept)}


def test_without_an_alias_no_collection_is_dropped() -> None:
    client = FakeCollections("products_1", "products_2")
    seed._go_live(client, "products_2")  # type: ignore[arg-type]
    assert client.names == {"products_1", "products_2"}

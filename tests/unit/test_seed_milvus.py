"""What the seed of Milvus decides by itself: the index by the catalogue's size, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

from ecrs.storage.vectors import EXACT_INDEX_LIMIT
from ecrs_seed import milvus as seed


class Index:
    """Of Milvus, what the checks ask: it holds `held` of the vectors and searches `searched` of them."""

    def __init__(self, vectors: np.ndarray, held: int, searched: int) -> None:
        self._vectors, self._held = vectors[:searched], held

    def query(self, name: str, **options: Any) -> list[dict[str, int]]:
        return [{"count(*)": self._held}]

    def search(self, name: str, data: list[np.ndarray], limit: int, **options: Any) -> list[Any]:
        distances = (np.sort(np.square(self._vectors - vector).sum(axis=1))[:limit] for vector in data)
        return [[{"distance": distance} for distance in of.tolist()] for of in distances]


@pytest.fixture
def vectors() -> np.ndarray:
    table = np.random.default_rng(1).normal(size=(2_000, 32)).astype(np.float32)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def test_an_index_that_finds_all_neighbours_passes(vectors: np.ndarray) -> None:
    skus = [str(number) for number in range(len(vectors))]
    seed._check(Index(vectors, len(vectors), len(vectors)), "c", skus, vectors)  # type: ignore[arg-type]


def test_an_index_that_misses_too_many_is_refused(vectors: np.ndarray) -> None:
    skus = [str(number) for number in range(len(vectors))]
    with pytest.raises(seed.SeedError, match=r"c: recall@100 against brute force is 0\.9[67]"):
        seed._check(Index(vectors, len(vectors), 1_930), "c", skus, vectors)  # type: ignore[arg-type]


def test_a_collection_that_lost_vectors_is_refused(vectors: np.ndarray) -> None:
    skus = [str(number) for number in range(len(vectors))]
    with pytest.raises(seed.SeedError, match=r"1,999 vectors, 2,000 were written"):
        seed._check(Index(vectors, 1_999, len(vectors)), "c", skus, vectors)  # type: ignore[arg-type]


@pytest.mark.parametrize(("products", "kind"), [(EXACT_INDEX_LIMIT, "FLAT"), (EXACT_INDEX_LIMIT + 1, "HNSW")])
def test_the_index_follows_the_size(products: int, kind: str) -> None:
    (index,) = seed.index_for(MilvusClient, products)
    assert index.to_dict()["index_type"] == kind

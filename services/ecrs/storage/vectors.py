"""The vector store's interface, and which implementation the settings ask for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import orjson

from ecrs.bundle import BundleError
from ecrs.rpc.errors import Unavailable, quoted

EXACT_INDEX_LIMIT = 100_000
"""Items up to which both stores scan every vector, which takes about a millisecond and is exact."""

CHECKED_QUERIES, CHECKED_NEIGHBOURS, MIN_INDEX_RECALL = 200, 100, 0.99
"""An approximate index must find this share of a sample's true nearest neighbours before it serves."""

DISTANCE_TOLERANCE = 1e-5
"""How far two distances that mean the same may be apart: of equally near items any is right."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Search results, nearest first.

    `skus`; `distance`, float32 (N,), squared L2, for unit vectors 2 − 2·cosine; `cold_start_category`, int64
    (N,), the category's vocabulary id of cold-start items, 0 for others.
    """

    skus: list[str]
    distance: np.ndarray
    cold_start_category: np.ndarray

    def __len__(self) -> int:
        return len(self.skus)


NO_NEIGHBOURS = Neighbours([], np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64))


class VectorStore(Protocol):
    """Item vectors of one bundle.

    Methods raise Unavailable when the store is away, DeadlineExceeded past `timeout_s`.
    """

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        """The `n` items nearest to `vector`, float32, shape (DIM,)."""

    async def search_cold_start(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        """As `search`, among newcomers only."""

    async def version(self, timeout_s: float) -> str:
        """The bundle version of the vectors that `search` reads."""

    async def count(self, timeout_s: float) -> int:
        """How many items `search` reads."""

    async def upsert(
        self,
        version: str,
        skus: Sequence[str],
        vectors: np.ndarray,
        cold_start_category: Sequence[int],
        timeout_s: float,
    ) -> None:
        """Add items, or give known ones another vector: float32, shape (len(skus), DIM), no sku twice.

        `cold_start_category`: the category's vocabulary id, at least 1, of an item that the bundle does not
        know; 0 for the others.
        `search` finds them within a second, and they outlive a restart. Unavailable also if the store
        does not hold the vectors of `version`.
        """

    async def remove(self, version: str, skus: Sequence[str], timeout_s: float) -> None:
        """Take items out of what `search` finds, as `upsert` puts them in; unknown ones are no fault."""


def check_version(held: str, wanted: str) -> None:
    """Unavailable unless a store that holds version `held` may take vectors of version `wanted`."""
    if held != wanted:
        raise Unavailable(f"versions differ: the vectors held are {held}, those given are {quoted(wanted)}")


def sample_vectors(vectors: np.ndarray) -> np.ndarray:
    """SAMPLE of the vectors, or fewer where there are not so many, from across all of them."""
    return vectors[:: max(len(vectors) // CHECKED_QUERIES, 1)][:CHECKED_QUERIES]


def read_vectors(lines: Iterator[str], count: int) -> tuple[list[str], np.ndarray]:
    """The skus and vectors, float32, shape (count, DIM), of `product_vectors.txt` lines.

    Raises BundleError, with the line's number, for a line that is not `sku:[v1, v2, …]`, for a vector of
    another width than the first, for values that are not finite, and for a sku that is there twice.
    """
    skus: list[str] = []
    vectors: np.ndarray | None = None
    for number, line in enumerate(lines, 1):
        sku, _, text = line.partition(":")
        try:
            vector = np.array(orjson.loads(text), dtype=np.float32)
            if vectors is None:
                vectors = np.empty((count, len(vector)), dtype=np.float32)
            if vector.shape != vectors.shape[1:]:
                raise ValueError(f"{vector.size} values, expected {vectors.shape[1]}")
            vectors[number - 1] = vector
        except (ValueError, TypeError, IndexError) as error:
            raise BundleError(f"product_vectors.txt:{number}: {error}") from error
        skus.append(sku)
    if vectors is None:
        raise BundleError("product_vectors.txt: no lines")
    if len(skus) != count:
        raise BundleError(f"product_vectors.txt: {len(skus)} lines, expected {count}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise BundleError(f"product_vectors.txt:{int(np.argmin(finite)) + 1}: a value is not finite")
    if len(last := {sku: place for place, sku in enumerate(skus, 1)}) < count:
        twice = next(sku for place, sku in enumerate(skus, 1) if last[sku] != place)
        raise BundleError(f"product_vectors.txt:{last[twice]}: sku {twice!r} is there twice")
    return skus, vectors

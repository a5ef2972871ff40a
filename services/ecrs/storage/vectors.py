"""Interface of the vector store, and what its implementations and the seed share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import orjson

from ecrs.bundle import BundleError
from ecrs.rpc.errors import Unavailable, quoted

EXACT_INDEX_LIMIT = 100_000
"""Up to this number of items, both stores scan every vector. That is exact and takes about a millisecond."""

CHECKED_QUERIES, CHECKED_NEIGHBOURS, MIN_INDEX_RECALL = 200, 100, 0.99
"""An approximate index is checked before it serves: for CHECKED_QUERIES sampled vectors, it must find at
least MIN_INDEX_RECALL of the CHECKED_NEIGHBOURS exact nearest neighbours."""

DISTANCE_TOLERANCE = 1e-5
"""Two distances that differ by no more than this count as equal, and any of equally near items is correct."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Search results, nearest first.

    `distance`: float32, shape (N,), squared L2 distance, which for unit vectors is 2 − 2·cosine.
    `cold_start_category`: int64, shape (N,), the vocabulary id of a cold-start item's category, 0 for other
    items.
    """

    skus: list[str]
    distance: np.ndarray
    cold_start_category: np.ndarray

    def __len__(self) -> int:
        return len(self.skus)


NO_NEIGHBOURS = Neighbours([], np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64))


class VectorStore(Protocol):
    """The item vectors of one bundle version.

    Every method raises Unavailable if the store cannot be reached or refuses the call, and DeadlineExceeded
    if it does not answer within `timeout_s`.
    """

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        """Return the `n` items nearest to `vector`, which is float32, shape (DIM,)."""

    async def search_cold_start(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        """Return the `n` nearest cold-start items, like `search`."""

    async def version(self, timeout_s: float) -> str:
        """Return the bundle version of the vectors that `search` reads."""

    async def count(self, timeout_s: float) -> int:
        """Return the number of items that `search` reads."""

    async def upsert(
        self,
        version: str,
        skus: Sequence[str],
        vectors: np.ndarray,
        cold_start_category: Sequence[int],
        timeout_s: float,
    ) -> None:
        """Add items, or replace the vectors of known ones.

        `vectors`: float32, shape (len(skus), DIM). `skus` must not contain duplicates. `cold_start_category`:
        the vocabulary id, at least 1, of the category of an item that the bundle does not have; 0 for an item
        of the bundle.

        `search` finds the new vectors within a second. Raises Unavailable also if the store does not hold the
        vectors of `version`.
        """

    async def remove(self, version: str, skus: Sequence[str], timeout_s: float) -> None:
        """Remove items, with the same guarantees as `upsert`. Unknown skus are ignored."""


def check_version(held: str, wanted: str) -> None:
    """Raise Unavailable if a store that holds version `held` is sent a change for version `wanted`."""
    if held != wanted:
        raise Unavailable(
            f"versions differ: the vector store holds {held}, the change is for {quoted(wanted)}"
        )


def sample_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return CHECKED_QUERIES of the vectors, evenly spaced, or all of them if there are fewer."""
    return vectors[:: max(len(vectors) // CHECKED_QUERIES, 1)][:CHECKED_QUERIES]


def read_vectors(lines: Iterator[str], count: int, width: int | None = None) -> tuple[list[str], np.ndarray]:
    """Parse the lines of `product_vectors.txt`: the skus, and their vectors as float32, shape (count, width).

    Raises BundleError, with the line number, for a line that is not `sku:[v1, v2, …]`, a vector of another
    width (default: the first one's), a value that is not finite, and a duplicate sku; and if there are not
    `count` lines.
    """
    skus: list[str] = []
    vectors: np.ndarray | None = None
    for number, line in enumerate(lines, 1):
        sku, _, text = line.partition(":")
        try:
            vector = np.array(orjson.loads(text), dtype=np.float32)
            if vectors is None:
                vectors = np.empty((count, width or len(vector)), dtype=np.float32)
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
    if len(last_line := {sku: number for number, sku in enumerate(skus, 1)}) < count:
        duplicate = next(sku for number, sku in enumerate(skus, 1) if last_line[sku] != number)
        raise BundleError(f"product_vectors.txt:{last_line[duplicate]}: sku {duplicate!r} appears twice")
    return skus, vectors

"""Validates and applies changes of item vectors while the platform runs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np

from ecrs.bundle import Bundle
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import BadRequest
from ecrs.storage.vectors import VectorStore, check_version

UPDATE_LIMIT_S = 5.0
"""Longest time for the vector store to apply a change."""
UNIT_TOLERANCE = 1e-3
"""Largest difference of a vector's length from 1. The item tower's vectors have unit length."""


class VectorUpdater:
    """Accepts vectors of its own bundle version only.

    Distances to vectors of another training would look plausible and be meaningless.
    """

    def __init__(self, bundle: Bundle, width: int, vectors: VectorStore) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._width = width
        self._vectors = vectors
        self._lock = asyncio.Lock()

    async def upsert(
        self,
        version: str,
        skus: Sequence[str],
        vectors: Sequence[Sequence[float]],
        categories: Sequence[str],
        deadline: Deadline,
    ) -> None:
        """Add items, or replace the vectors of known ones; `categories` are used for cold-start items only.

        Raises BadRequest, naming the item, for a vector of the wrong width, with a value that is not finite,
        or without unit length. Raises Unavailable for vectors of another version.
        """
        check_version(self.version, version)
        for sku, vector in zip(skus, vectors, strict=True):
            if len(vector) != self._width:
                raise BadRequest(f"vectors: sku {sku!r}: {len(vector)} values, expected {self._width}")
        table = np.array(vectors, dtype=np.float32)
        finite = np.isfinite(table).all(axis=1)
        if not finite.all():
            raise BadRequest(f"vectors: sku {skus[int(np.argmin(finite))]!r}: a value is not finite")
        lengths = np.linalg.norm(table.astype(np.float64), axis=1)
        if (difference := np.abs(lengths - 1)).max() > UNIT_TOLERANCE:
            worst = int(np.argmax(difference))
            raise BadRequest(f"vectors: sku {skus[worst]!r}: length {lengths[worst]:.6g}, expected 1")
        async with self.alone() as updates:
            await updates.put(skus, table, categories, deadline)

    async def remove(self, version: str, skus: Sequence[str], deadline: Deadline) -> None:
        """Remove the vectors of items; unknown skus are ignored. Raises Unavailable for another version."""
        check_version(self.version, version)
        async with self.alone() as updates:
            await updates.remove(skus, deadline)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator["ExclusiveUpdates"]:
        """Yield access to the vector store that no other update has while the context is open."""
        async with self._lock:
            yield ExclusiveUpdates(self._bundle, self._vectors)


class ExclusiveUpdates:
    """Changes the vector store with vectors that are known to be valid."""

    def __init__(self, bundle: Bundle, vectors: VectorStore) -> None:
        self._bundle = bundle
        self._vectors = vectors

    async def put(
        self, skus: Sequence[str], table: np.ndarray, categories: Sequence[str], deadline: Deadline
    ) -> None:
        """Add items or replace their vectors: float32, shape (len(skus), DIM)."""
        cold_start_category = self._bundle.cold_start_categories(skus, categories)
        timeout_s = deadline.share("vectors", limit_s=UPDATE_LIMIT_S)
        await self._vectors.upsert(self._bundle.version, skus, table, cold_start_category, timeout_s)

    async def remove(self, skus: Sequence[str], deadline: Deadline) -> None:
        """Remove the vectors of items."""
        timeout_s = deadline.share("vectors", limit_s=UPDATE_LIMIT_S)
        await self._vectors.remove(self._bundle.version, skus, timeout_s)

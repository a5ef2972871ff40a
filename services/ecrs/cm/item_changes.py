"""Adds, changes and removes items, and sets their stock, while the platform runs.

An item consists of a record in the profile store and a vector in recall's vector store. The vector is changed
first: the gateway drops a candidate that has a vector and no record. If a change fails half-way, repeating
the same call repairs it.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from ecrs.cm.item_cache import ItemCache
from ecrs.cm.item_tower import STEP_LIMIT_S, ItemEmbedder
from ecrs.domain.entities import Item
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import Unavailable
from ecrs.storage.profiles import ItemStore
from ecrs.storage.seeded_version import SeededVersion


class VectorUpdates(Protocol):
    """Changes of the item vectors in recall.

    Methods raise Unavailable if recall cannot be reached or serves another version than `version`.
    """

    async def upsert(
        self, version: str, items: Sequence[Item], vectors: np.ndarray, log_id: str, timeout_s: float
    ) -> None:
        """Add items or replace their vectors: float32, shape (len(items), DIM)."""

    async def remove(self, version: str, skus: Sequence[str], log_id: str, timeout_s: float) -> None:
        """Remove the vectors of items; unknown skus are ignored."""


class ItemChanges:
    """Applies changes one at a time, so that an item's record and its vector come from the same change."""

    def __init__(
        self,
        store: ItemStore,
        records: ItemCache,
        seeded: SeededVersion,
        tower: ItemEmbedder,
        vectors: VectorUpdates,
    ) -> None:
        self._store = store
        self._records = records
        self._seeded = seeded
        self._tower = tower
        self._vectors = vectors
        self._lock = asyncio.Lock()

    async def put(self, items: Sequence[Item], log_id: str, deadline: Deadline) -> None:
        """Add or replace items. When this returns, recall can retrieve them and cm can look them up.

        Raises Unavailable if the item tower, recall or the profile store fails, or if they are of different
        bundle versions.
        """
        version = self._version()
        vectors = await self._tower.embed(items, deadline)
        async with self._lock:
            await self._vectors.upsert(
                version, items, vectors, log_id, deadline.share("recall", limit_s=STEP_LIMIT_S)
            )
            with self._forgetting([item.sku for item in items]):
                await self._store.put(items, deadline.share("redis", limit_s=STEP_LIMIT_S))

    async def remove(self, skus: Sequence[str], log_id: str, deadline: Deadline) -> list[str]:
        """Remove items and return the skus that were unknown. Raises Unavailable like `put`."""
        version = self._version()
        async with self._lock:
            await self._vectors.remove(version, skus, log_id, deadline.share("recall", limit_s=STEP_LIMIT_S))
            with self._forgetting(skus):
                return await self._store.remove(skus, deadline.share("redis", limit_s=STEP_LIMIT_S))

    async def set_stock(self, skus: Sequence[str], deadline: Deadline, *, in_stock: bool) -> list[str]:
        """Set the stock of items and return the unknown skus. Needs the profile store only."""
        with self._forgetting(skus):
            return await self._store.set_stock(
                skus, in_stock=in_stock, timeout_s=deadline.share("redis", limit_s=STEP_LIMIT_S)
            )

    @contextmanager
    def _forgetting(self, skus: Sequence[str]) -> Iterator[None]:
        """Drop the cached records after the change, even after a failed one: the store may have made it."""
        try:
            yield
        finally:
            self._records.forget(skus)

    def _version(self) -> str:
        """Return the version of the item tower and the profile store. Raises Unavailable if they differ."""
        tower, seeded = self._tower.version, self._seeded.version
        if tower != seeded:
            held = seeded or "nothing yet"
            raise Unavailable(f"versions differ: the profile store holds {held}, the item tower is {tower}")
        return tower

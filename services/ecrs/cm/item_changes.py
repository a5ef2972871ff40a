"""Products that come, change, run out and go while the platform runs.

A product is a record in the profile store and a vector in recall's. Vectors go first: a vector without
a record is a candidate that the gateway drops, and what failed half-way is mended by the same call again.
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
    """Where vectors go: recall. Methods raise Unavailable when it is away or serves another version."""

    async def upsert(
        self, version: str, items: Sequence[Item], vectors: np.ndarray, log_id: str, timeout_s: float
    ) -> None: ...

    async def remove(self, version: str, skus: Sequence[str], log_id: str, timeout_s: float) -> None: ...


class ItemChanges:
    """One after the other, so that of two for one product record and vector are the same one's."""

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
        self._turn = asyncio.Lock()

    async def put(self, items: Sequence[Item], log_id: str, deadline: Deadline) -> None:
        """Take new or changed items; when this returns, recall can find them and cm knows them.

        Raises Unavailable if the item tower or recall is away, or the stores hold another bundle.
        """
        version = self._version()
        vectors = await self._tower.embed(items, deadline)
        async with self._turn:
            await self._vectors.upsert(
                version, items, vectors, log_id, deadline.share("recall", limit_s=STEP_LIMIT_S)
            )
            with self._changing([item.sku for item in items]):
                await self._store.put(items, deadline.share("redis", limit_s=STEP_LIMIT_S))

    async def remove(self, skus: Sequence[str], log_id: str, deadline: Deadline) -> list[str]:
        """Forget items; the skus that were not known. Unavailable as `put`."""
        version = self._version()
        async with self._turn:
            await self._vectors.remove(version, skus, log_id, deadline.share("recall", limit_s=STEP_LIMIT_S))
            with self._changing(skus):
                return await self._store.remove(skus, deadline.share("redis", limit_s=STEP_LIMIT_S))

    async def set_stock(self, skus: Sequence[str], deadline: Deadline, *, in_stock: bool) -> list[str]:
        """Mark items; the skus that are not known. Needs the profile store alone."""
        with self._changing(skus):
            return await self._store.set_stock(
                skus, in_stock=in_stock, timeout_s=deadline.share("redis", limit_s=STEP_LIMIT_S)
            )

    @contextmanager
    def _changing(self, skus: Sequence[str]) -> Iterator[None]:
        """Whatever comes of it: a change that was not answered for may have been made."""
        try:
            yield
        finally:
            self._records.forget(skus)

    def _version(self) -> str:
        """The one version of item tower and profile store."""
        mine, seeded = self._tower.version, self._seeded.version
        if mine != seeded:
            held = seeded or "nothing yet"
            raise Unavailable(f"versions differ: the profile store holds {held}, the item tower is {mine}")
        return mine

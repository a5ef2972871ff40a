"""Products that come, change, run out and go while the platform runs.

A product is a record in the profile store and a vector in recall's. Vectors go first: a vector without
a record is a candidate that the gateway drops, and what failed half-way is mended by the same call again.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from ecrs.bundle import Bundle
from ecrs.cm.records import Records
from ecrs.domain import ITEM_FIELDS, Item
from ecrs.features import Encoder
from ecrs.kit.budget import Budget
from ecrs.kit.errors import Unavailable
from ecrs.model.served import ServedModel, check_golden
from ecrs.profiles import ItemStore
from ecrs.seeded import Seeded

CAP_S = 5.0
"""The most that one step of a change may take."""


class Vectors(Protocol):
    """Where vectors go: recall. Methods raise Unavailable when it is away or serves another version."""

    async def upsert(
        self, version: str, items: Sequence[Item], vectors: np.ndarray, log_id: str, timeout_s: float
    ) -> None: ...

    async def remove(self, version: str, skus: Sequence[str], log_id: str, timeout_s: float) -> None: ...


class ItemTower:
    """Products to vectors, by one bundle's vocabularies and item tower."""

    def __init__(self, bundle: Bundle, model: ServedModel) -> None:
        self.version = bundle.version
        self._golden = bundle.golden["item_tower"]
        self._encoder = Encoder.load(bundle.path / "vocabulary", ITEM_FIELDS)
        self._model = model
        self._checked = False

    async def embed(self, items: Sequence[Item], budget: Budget) -> np.ndarray:
        """Item tower output: float32, shape (len(items), DIM), unit length.

        Raises Unavailable if the model is away, of another version, or answers other than at training.
        """
        if not self._checked:
            await check_golden(self._model, self._golden, budget.stage("golden", cap_s=CAP_S))
            self._checked = True
        return await self._model.infer(self._encoder.items(items), budget.stage("item_tower", cap_s=CAP_S))


class Changes:
    """One after the other, so that of two for one product record and vector are the same one's."""

    def __init__(
        self, store: ItemStore, records: Records, seeded: Seeded, tower: ItemTower, vectors: Vectors
    ) -> None:
        self._store = store
        self._records = records
        self._seeded = seeded
        self._tower = tower
        self._vectors = vectors
        self._turn = asyncio.Lock()

    async def put(self, items: Sequence[Item], log_id: str, budget: Budget) -> None:
        """Take new or changed items; when this returns, recall can find them and cm knows them.

        Raises Unavailable if the item tower or recall is away, or the stores hold another bundle.
        """
        version = self._version()
        vectors = await self._tower.embed(items, budget)
        async with self._turn:
            await self._vectors.upsert(version, items, vectors, log_id, budget.stage("recall", cap_s=CAP_S))
            with self._changing([item.sku for item in items]):
                await self._store.put(items, budget.stage("redis", cap_s=CAP_S))

    async def remove(self, skus: Sequence[str], log_id: str, budget: Budget) -> list[str]:
        """Forget items; the skus that were not known. Unavailable as `put`."""
        version = self._version()
        async with self._turn:
            await self._vectors.remove(version, skus, log_id, budget.stage("recall", cap_s=CAP_S))
            with self._changing(skus):
                return await self._store.remove(skus, budget.stage("redis", cap_s=CAP_S))

    async def set_stock(self, skus: Sequence[str], budget: Budget, *, in_stock: bool) -> list[str]:
        """Mark items; the skus that are not known. Needs the profile store alone."""
        with self._changing(skus):
            return await self._store.set_stock(
                skus, in_stock=in_stock, timeout_s=budget.stage("redis", cap_s=CAP_S)
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

"""Fake stores and models that keep everything in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ecrs.domain.entities import Item, User
from ecrs.rpc.errors import DeadlineExceeded, Fault
from ecrs.serving.signature import ModelSignature
from ecrs.storage.item_journal import START, ChangeKind, ItemChange
from ecrs.storage.profiles import NotSeeded
from ecrs.storage.vectors import Neighbours, check_version


@dataclass
class Trouble:
    """How a fake store fails: it raises `fault`, or answers after `delay_s`."""

    fault: Fault | None = None
    delay_s: float = 0.0

    async def apply(self, timeout_s: float) -> None:
        if self.fault:
            raise self.fault
        if self.delay_s > timeout_s:
            await asyncio.sleep(timeout_s)
            raise DeadlineExceeded("too slow")
        await asyncio.sleep(self.delay_s)


@dataclass
class FakeProfiles:
    """A profile store in memory; `seeded` is the version of the bundle that it holds, or None.

    `trouble` is that of all methods, `apply_trouble` that of `apply` alone.
    """

    users: dict[str, User] = field(default_factory=dict)
    products: dict[str, Item] = field(default_factory=dict)
    seeded: str | None = "20260101_000000_00000000"
    trouble: Trouble = field(default_factory=Trouble)
    apply_trouble: Trouble = field(default_factory=Trouble)
    positions: dict[str, str] = field(default_factory=dict)

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        await self._answer(timeout_s)
        return self.users.get(user_id)

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        await self._answer(timeout_s)
        return [self.products.get(sku) for sku in skus]

    async def missing(self, skus: Sequence[str], timeout_s: float) -> list[str]:
        await self.trouble.apply(timeout_s)
        return [sku for sku in skus if sku not in self.products]

    async def position(self, follower: str, timeout_s: float) -> str:
        await self.trouble.apply(timeout_s)
        return self.positions.get(follower, START)

    async def set_position(self, follower: str, position: str, timeout_s: float) -> None:
        await self.trouble.apply(timeout_s)
        self.positions[follower] = position

    async def apply(
        self, follower: str, after: str, upto: str, changes: Sequence[ItemChange], timeout_s: float
    ) -> bool:
        await self.trouble.apply(timeout_s)
        await self.apply_trouble.apply(timeout_s)
        if self.positions.get(follower, START) != after:
            return False
        for change in changes:
            if change.kind is ChangeKind.PUT:
                self.products[change.sku] = change.item
            elif change.kind is ChangeKind.REMOVED:
                self.products.pop(change.sku, None)
            elif change.sku in self.products:
                item = self.products[change.sku]
                self.products[change.sku] = replace(item, out_of_stock=change.out_of_stock)
        self.positions[follower] = upto
        return True

    async def version(self, timeout_s: float) -> str | None:
        await self.trouble.apply(timeout_s)
        return self.seeded

    async def _answer(self, timeout_s: float) -> None:
        await self.trouble.apply(timeout_s)
        if self.seeded is None:
            raise NotSeeded


@dataclass
class FakeVectors:
    """A vector store in memory that searches by brute force; `bundle_version` is that of its bundle."""

    skus: list[str]
    vectors: np.ndarray
    bundle_version: str = "20260101_000000_00000000"
    trouble: Trouble = field(default_factory=Trouble)
    cold_start_category: dict[str, int] = field(default_factory=dict)

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        await self.trouble.apply(timeout_s)
        return self._nearest(vector, range(len(self.skus)), n)

    async def search_cold_start(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        await self.trouble.apply(timeout_s)
        return self._nearest(
            vector, [row for row, sku in enumerate(self.skus) if sku in self.cold_start_category], n
        )

    def _nearest(self, vector: np.ndarray, candidates: Sequence[int], n: int) -> Neighbours:
        rows = np.array(candidates, dtype=np.int64)
        distances = np.square(self.vectors[rows] - vector).sum(axis=1)
        order = np.argsort(distances, kind="stable")[:n]
        skus = [self.skus[row] for row in rows[order]]
        return Neighbours(
            skus, distances[order], np.array([self.cold_start_category.get(sku, 0) for sku in skus], int)
        )

    async def version(self, timeout_s: float) -> str:
        await self.trouble.apply(timeout_s)
        return self.bundle_version

    async def count(self, timeout_s: float) -> int:
        return len(self.skus)

    async def upsert(
        self,
        version: str,
        skus: Sequence[str],
        vectors: np.ndarray,
        cold_start_category: Sequence[int],
        timeout_s: float,
    ) -> None:
        await self.remove(version, skus, timeout_s)
        self.skus = [*self.skus, *skus]
        self.vectors = np.concatenate([self.vectors, vectors])
        self.cold_start_category |= {
            sku: category for sku, category in zip(skus, cold_start_category, strict=True) if category
        }

    async def remove(self, version: str, skus: Sequence[str], timeout_s: float) -> None:
        await self.trouble.apply(timeout_s)
        check_version(self.bundle_version, version)
        kept = [row for row, sku in enumerate(self.skus) if sku not in set(skus)]
        self.skus, self.vectors = [self.skus[row] for row in kept], self.vectors[kept]
        self.cold_start_category = {
            sku: category for sku, category in self.cold_start_category.items() if sku not in set(skus)
        }


@dataclass
class FakeModel:
    """A model whose output is `outputs(ids)`."""

    signature: ModelSignature
    outputs: object
    trouble: Trouble = field(default_factory=Trouble)

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        await self.trouble.apply(timeout_s)
        return np.asarray(self.outputs(self.signature.check(ids)), dtype=np.float32)

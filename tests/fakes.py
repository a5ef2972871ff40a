"""Stores that keep everything in this process: the third implementation of each interface."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ecrs.domain import Item, User
from ecrs.kit.errors import Fault, OutOfTime
from ecrs.model.signature import ModelSignature
from ecrs.recall.vectors import Neighbour


@dataclass
class Trouble:
    """What a fake store does instead of answering: raise `fault`, or take `delay_s`."""

    fault: Fault | None = None
    delay_s: float = 0.0

    async def strike(self, timeout_s: float) -> None:
        if self.fault:
            raise self.fault
        if self.delay_s > timeout_s:
            await asyncio.sleep(timeout_s)
            raise OutOfTime("too slow")
        await asyncio.sleep(self.delay_s)


@dataclass
class FakeProfiles:
    users: dict[str, User] = field(default_factory=dict)
    products: dict[str, Item] = field(default_factory=dict)
    seeded: str | None = "20260101_000000_00000000"
    trouble: Trouble = field(default_factory=Trouble)

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        await self.trouble.strike(timeout_s)
        return self.users.get(user_id)

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        await self.trouble.strike(timeout_s)
        return [self.products.get(sku) for sku in skus]

    async def version(self, timeout_s: float) -> str | None:
        await self.trouble.strike(timeout_s)
        return self.seeded


@dataclass
class FakeVectors:
    skus: list[str]
    vectors: np.ndarray
    held: str = "20260101_000000_00000000"
    trouble: Trouble = field(default_factory=Trouble)

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> list[Neighbour]:
        await self.trouble.strike(timeout_s)
        distances = np.square(self.vectors - vector).sum(axis=1)
        return [
            Neighbour(self.skus[row], float(distances[row]))
            for row in np.argsort(distances, kind="stable")[:n]
        ]

    async def version(self, timeout_s: float) -> str:
        await self.trouble.strike(timeout_s)
        return self.held

    async def count(self, timeout_s: float) -> int:
        return len(self.skus)


@dataclass
class FakeModel:
    """Answers `outputs(ids)`."""

    signature: ModelSignature
    outputs: object
    trouble: Trouble = field(default_factory=Trouble)

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        await self.trouble.strike(timeout_s)
        return np.asarray(self.outputs(self.signature.check(ids)), dtype=np.float32)

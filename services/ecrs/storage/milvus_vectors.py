"""Item vectors in Milvus: an alias names the live collection, a collection's name its bundle."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
import orjson
from grpc import RpcError
from pymilvus import AsyncMilvusClient
from pymilvus.exceptions import MilvusException

from ecrs.rpc.deadlines import bounded
from ecrs.settings import VectorSettings
from ecrs.storage.vectors import Neighbours, check_version

T = TypeVar("T")

ALIAS = "products"
PREFIX = "products_"
CONSISTENCY = "Bounded"
"""3 ms a search where `Strong` costs 206 ms; seeding is checked before the alias moves."""


def collection_name(version: str) -> str:
    return PREFIX + version


MIN_EF = 800
"""Items that HNSW looks at, at least: with 200, one in twenty neighbours among 350,000 was missed."""


def search_params(n: int) -> dict[str, dict[str, int]]:
    """For `n` neighbours; the exact index of small catalogues ignores it."""
    return {"params": {"ef": max(2 * n, MIN_EF)}}


def milvus_address(settings: VectorSettings) -> dict[str, str]:
    """A client's `uri` and `db_name` for milvus://host:port[/database]."""
    host, _, database = settings.vectors.removeprefix("milvus://").partition("/")
    return {"uri": f"http://{host}", "db_name": database or "default"}


def token(password: str | None) -> str:
    return f"root:{password}" if password else ""


class MilvusVectors:
    """A `VectorStore` on the collection that the alias names."""

    def __init__(self, client: AsyncMilvusClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: VectorSettings) -> AsyncIterator["MilvusVectors"]:
        client = AsyncMilvusClient(**milvus_address(settings), token=token(settings.milvus_password))
        try:
            yield cls(client)
        finally:
            await client.close()

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        return await self._search(vector, n, timeout_s)

    async def search_cold_start(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        return await self._search(
            vector, n, timeout_s, filter="cold_start_category > 0", output_fields=["cold_start_category"]
        )

    async def _search(self, vector: np.ndarray, n: int, timeout_s: float, **options: Any) -> Neighbours:
        hits = await _bounded(
            self._client.search(
                ALIAS,
                data=[vector],
                limit=n,
                search_params=search_params(n),
                consistency_level=CONSISTENCY,
                timeout=timeout_s,
                **options,
            ),
            timeout_s,
        )
        return Neighbours(
            [hit.id for hit in hits[0]],
            np.array([hit.distance for hit in hits[0]], dtype=np.float32),
            np.array([hit.entity.get("cold_start_category", 0) for hit in hits[0]], dtype=np.int64),
        )

    async def version(self, timeout_s: float) -> str:
        described = await _bounded(self._client.describe_collection(ALIAS, timeout=timeout_s), timeout_s)
        return described["collection_name"].removeprefix(PREFIX)

    async def count(self, timeout_s: float) -> int:
        rows = await _bounded(
            self._client.query(ALIAS, output_fields=["count(*)"], timeout=timeout_s), timeout_s
        )
        return rows[0]["count(*)"]

    async def upsert(
        self,
        version: str,
        skus: Sequence[str],
        vectors: np.ndarray,
        cold_start_category: Sequence[int],
        timeout_s: float,
    ) -> None:
        rows = [
            {"sku": sku, "vector": vector, "cold_start_category": category}
            for sku, vector, category in zip(skus, vectors, cold_start_category, strict=True)
        ]
        name = await self._collection(version, timeout_s)
        await _bounded(self._client.upsert(name, rows, timeout=timeout_s), timeout_s)

    async def remove(self, version: str, skus: Sequence[str], timeout_s: float) -> None:
        # Not by `ids`: pymilvus would put them between quotes as they are, and a sku may hold a quote.
        chosen = f"sku in {orjson.dumps(list(skus)).decode()}"
        name = await self._collection(version, timeout_s)
        await _bounded(self._client.delete(name, filter=chosen, timeout=timeout_s), timeout_s)

    async def _collection(self, version: str, timeout_s: float) -> str:
        """The live collection, which must be of `version`.

        Written to by its own name, not by the alias: that may move to a newer version meanwhile.
        """
        check_version(await self.version(timeout_s), version)
        return collection_name(version)


async def _bounded(call: Awaitable[T], timeout_s: float) -> T:
    away = (MilvusException, RpcError, OSError)
    return await bounded(timeout_s, "Milvus", call, dependency="milvus", unavailable_on=away)

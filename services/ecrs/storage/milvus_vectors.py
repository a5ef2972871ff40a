"""The vector store of the Docker profile: Milvus.

Each bundle version has a collection of its own, named after the version; the alias ALIAS points to the live
one.
"""

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
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
"""Consistency level of searches: 3 ms per search, where `Strong` takes 206 ms. Searches need no more, because
a seed checks a collection before the alias moves to it."""


def collection_name(version: str) -> str:
    """Return the name of the collection of a bundle version."""
    return PREFIX + version


MIN_EF = 800
"""Smallest search width (`ef`) of the HNSW index: with 200, it missed one in twenty neighbours among 350,000
items."""


def search_params(n: int) -> dict[str, dict[str, int]]:
    """Return the search parameters for `n` neighbours; the exact index of small catalogues ignores them."""
    return {"params": {"ef": max(2 * n, MIN_EF)}}


def milvus_address(settings: VectorSettings) -> dict[str, str]:
    """Return the client options for the setting milvus://host:port[/database], and those of TLS.

    With milvus+tls://, the server's certificate must be valid for the host name of the setting.
    """
    scheme, _, address = settings.vectors.partition("://")
    host, _, database = address.partition("/")
    uri = f"{'https' if scheme == 'milvus+tls' else 'http'}://{host}"
    options = {"uri": uri, "db_name": database or "default"}
    return options | ({"server_pem_path": str(settings.milvus_ca)} if settings.milvus_ca else {})


def token(user: str, password: str | None) -> str:
    """Return the token that signs in `user`; empty without a password."""
    return f"{user}:{password}" if password else ""


def rows_of(
    skus: Iterable[str], vectors: Iterable[np.ndarray], cold_start_category: Iterable[int]
) -> list[dict[str, Any]]:
    """Return the rows of items in a collection; see `VectorStore.upsert`."""
    return [
        {"sku": sku, "vector": vector, "cold_start_category": category}
        for sku, vector, category in zip(skus, vectors, cold_start_category, strict=True)
    ]


def filter_of(skus: Sequence[str]) -> str:
    """Return the filter that selects items.

    By `ids`, pymilvus would quote the skus without escaping, and a sku may contain a quote.
    """
    return f"sku in {orjson.dumps(list(skus)).decode()}"


class MilvusVectors:
    """A `VectorStore` in Milvus, which reads the collection that the alias points to."""

    def __init__(self, client: AsyncMilvusClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: VectorSettings) -> AsyncIterator["MilvusVectors"]:
        """Open a client of the configured Milvus for the duration of the context."""
        client = AsyncMilvusClient(
            **milvus_address(settings), token=token(settings.milvus_user, settings.milvus_password)
        )
        try:
            yield cls(client)
        finally:
            await client.close()

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        """Search all items of the live collection."""
        return await self._search(vector, n, timeout_s)

    async def search_cold_start(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        """Search the live collection, filtered to items with a cold-start category."""
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
        """Return the version in the name of the live collection."""
        described = await _bounded(self._client.describe_collection(ALIAS, timeout=timeout_s), timeout_s)
        return described["collection_name"].removeprefix(PREFIX)

    async def count(self, timeout_s: float) -> int:
        """Count the rows of the live collection."""
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
        """Insert or replace rows in the collection of `version`, which must be live."""
        rows = rows_of(skus, vectors, cold_start_category)
        name = await self._collection(version, timeout_s)
        await _bounded(self._client.upsert(name, rows, timeout=timeout_s), timeout_s)

    async def remove(self, version: str, skus: Sequence[str], timeout_s: float) -> None:
        """Delete rows from the collection of `version`, which must be live."""
        name = await self._collection(version, timeout_s)
        await _bounded(self._client.delete(name, filter=filter_of(skus), timeout=timeout_s), timeout_s)

    async def _collection(self, version: str, timeout_s: float) -> str:
        """Return the name of the live collection. Raises Unavailable if it is not of `version`.

        Changes go to this name and not to the alias, which may move to a newer version meanwhile.
        """
        check_version(await self.version(timeout_s), version)
        return collection_name(version)


async def _bounded(call: Awaitable[T], timeout_s: float) -> T:
    failures = (MilvusException, RpcError, OSError)
    return await bounded(timeout_s, "Milvus", call, dependency="milvus", unavailable_on=failures)

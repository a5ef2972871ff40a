"""Load a bundle's item vectors into Milvus and make them the live ones.

A new collection is filled, indexed, loaded and checked; only then does the alias move. So readers never see
a part of the catalogue, and a seed that fails leaves the former collection live. The former one is kept after
that too.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from grpc import RpcError
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.milvus_client.index import IndexParams

from ecrs.bundle import Bundle
from ecrs.domain.entities import MAX_SKU_BYTES
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.waiting import wait_until
from ecrs.settings import VectorSettings
from ecrs.storage.milvus_vectors import (
    ALIAS,
    CONSISTENCY,
    PREFIX,
    collection_name,
    milvus_address,
    search_params,
    token,
)
from ecrs.storage.vectors import (
    CHECKED_NEIGHBOURS,
    DISTANCE_TOLERANCE,
    EXACT_INDEX_LIMIT,
    MIN_INDEX_RECALL,
    read_vectors,
    sample_vectors,
)
from ecrs_seed.errors import SeedError
from ecrs_seed.report import SeedReport

BATCH = 5_000
FIELDS = {"sku", "vector", "cold_start_category"}

INITIAL_PASSWORD = "Milvus"  # noqa: S105 - every new Milvus has it; `connect` changes it


NOT_FOUND = 100
"""Milvus' code for a collection that is not there."""


async def connect(settings: VectorSettings, *, wait_s: float | None = None) -> MilvusClient:
    """A client with root's password, which is set first where Milvus still has its initial one.

    Waits for Milvus, up to `wait_s`. Raises SeedError where the settings name no Milvus.
    """
    if not settings.vectors.startswith("milvus://"):
        raise SeedError(f"ECRS_VECTORS is {settings.vectors!r}; expected milvus://host:port[/database]")
    address, password = milvus_address(settings), settings.milvus_password

    async def attempt() -> MilvusClient:
        try:
            client = _signed_in(address, token(password))
        except (MilvusException, RpcError, OSError) as error:
            if password:  # what a refused password looks like differs from version to version
                _change_password(address, password)
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        try:
            # After a start Milvus takes a password before it has loaded what it holds.
            if live := _live(client):
                _count(client, live)
        except (MilvusException, RpcError, OSError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        return client

    return await wait_until(f"Milvus at {address['uri']}", attempt, limit_s=wait_s)


def seed_milvus(
    bundle: Bundle, client: MilvusClient, *, advance: Callable[[int], None] = lambda rows: None
) -> SeedReport:
    """Load `product_vectors.txt` into a collection of this version, check it, move the alias to it.

    Does nothing if the alias names this version: it moved there after every vector was checked, and items
    that were added or removed since must stay so. Calls `advance` with the number of rows written since the
    last call. Raises SeedError if a check fails.
    """
    started = time.monotonic()
    name, rows = collection_name(bundle.version), bundle.count("product_vectors.txt")
    if _live(client) == name:
        if _is_whole(client, name):
            held = _count(client, name)
            return SeedReport("milvus", bundle.version, held, time.monotonic() - started, already_there=True)
        client.drop_alias(ALIAS)  # it would keep the collection from being made anew
    skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), rows)
    _fill(client, name, skus, vectors, advance)
    _check(client, name, skus, vectors)
    _go_live(client, name)
    return SeedReport("milvus", bundle.version, rows, time.monotonic() - started)


def _fill(
    client: MilvusClient, name: str, skus: list[str], vectors: np.ndarray, advance: Callable[[int], None]
) -> None:
    client.drop_collection(name)  # what a failed seed left; no error when there is none
    create(client, name, vectors.shape[1])
    for start in range(0, len(skus), BATCH):
        client.insert(name, batch_of(skus, vectors, start))
        advance(min(BATCH, len(skus) - start))
    client.flush(name)
    client.create_index(name, index_for(client, len(skus)))
    client.load_collection(name)


def create(client: MilvusClient, name: str, width: int) -> None:
    """An empty collection of products' vectors, without an index."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("sku", DataType.VARCHAR, is_primary=True, max_length=MAX_SKU_BYTES)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
    schema.add_field(
        "cold_start_category", DataType.INT64
    )  # of items that come later; see VectorStore.upsert
    client.create_collection(name, schema=schema, consistency_level=CONSISTENCY)


def batch_of(skus: list[str], vectors: np.ndarray, start: int) -> list[dict[str, Any]]:
    """A batch as `insert` takes it, from `start` on."""
    batch = zip(skus[start : start + BATCH], vectors[start : start + BATCH], strict=True)
    return [{"sku": sku, "vector": vector, "cold_start_category": 0} for sku, vector in batch]


def index_for(client: MilvusClient | type[MilvusClient], products: int) -> IndexParams:
    """Exact while a scan takes about a millisecond; see docs/decisions/0006-the-index-follows-the-size.md."""
    index = client.prepare_index_params()
    if products <= EXACT_INDEX_LIMIT:
        index.add_index("vector", index_type="FLAT", metric_type="L2")
    else:
        parameters = {"M": 16, "efConstruction": 200}
        index.add_index("vector", index_type="HNSW", metric_type="L2", params=parameters)
    return index


def _check(client: MilvusClient, name: str, skus: list[str], vectors: np.ndarray) -> None:
    found = _count(client, name)
    if found != len(skus):
        raise SeedError(f"{name}: {found:,} vectors, {len(skus):,} were written")
    recall = _recall(client, name, skus, vectors)
    if recall < MIN_INDEX_RECALL:
        raise SeedError(
            f"{name}: recall@{CHECKED_NEIGHBOURS} against brute force is {recall:.3f}, "
            f"at least {MIN_INDEX_RECALL}"
        )


def _recall(client: MilvusClient, name: str, skus: list[str], vectors: np.ndarray) -> float:
    """The share of a sample's true nearest neighbours that the index finds.

    Counted by distance: of equally near items it does not matter which is found.
    """
    n = min(CHECKED_NEIGHBOURS, len(skus))
    sample = sample_vectors(vectors)
    lengths = np.square(vectors).sum(axis=1)
    hits = client.search(
        name, data=list(sample), limit=n, consistency_level="Strong", search_params=search_params(n)
    )
    found = 0
    for vector, neighbours in zip(sample, hits, strict=True):
        distances = lengths - 2 * (vectors @ vector) + vector @ vector
        farthest = np.partition(distances, n - 1)[n - 1]
        found += sum(hit["distance"] <= farthest + DISTANCE_TOLERANCE for hit in neighbours)
    return found / (len(sample) * n)


def _go_live(client: MilvusClient, name: str) -> None:
    """Move the alias. Keep the collection that it named before, to go back to, and drop older ones.

    Without an alias it is not known which collection was live before: then none is dropped.
    """
    former = _live(client)
    if former is None:
        client.create_alias(name, ALIAS)
        return
    client.alter_alias(name, ALIAS)
    for other in client.list_collections():
        if other.startswith(PREFIX) and other not in (name, former):
            client.drop_collection(other)


def _live(client: MilvusClient) -> str | None:
    """The collection that the alias names, None before the first seed."""
    try:
        # Not list_aliases: Milvus 2.3 looks for those in the default database only.
        return client.describe_collection(ALIAS)["collection_name"]
    except MilvusException as error:
        if error.code == NOT_FOUND:
            return None
        raise


def _is_whole(client: MilvusClient, name: str) -> bool:
    """Whether a collection has today's fields, and not lost everything."""
    fields = {field["name"] for field in client.describe_collection(name)["fields"]}
    return fields == FIELDS and _count(client, name) > 0


def _count(client: MilvusClient, name: str) -> int:
    return client.query(name, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]


def _signed_in(address: dict[str, str], with_token: str) -> MilvusClient:
    client = MilvusClient(**address, token=with_token, timeout=5)
    client.list_collections()
    return client


def _change_password(address: dict[str, str], password: str) -> None:
    try:
        client = _signed_in(address, token(INITIAL_PASSWORD))
        client.update_password("root", INITIAL_PASSWORD, password)
    except (MilvusException, RpcError, OSError) as error:
        raise Unavailable(f"root has neither the given password nor the initial one: {error}") from error

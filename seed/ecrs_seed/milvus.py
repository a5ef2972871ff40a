"""Loads a bundle's item vectors into Milvus and makes them live.

A new collection is filled, indexed, loaded and checked, and gets the changes in the journal of item changes.
Only then is the alias moved to it. So readers never see a partial catalogue, and a failed seed leaves the
previous collection live. After a successful seed, the previous collection is kept as well.
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
from ecrs.storage.item_journal import START
from ecrs.storage.milvus_vectors import (
    ALIAS,
    CONSISTENCY,
    PREFIX,
    collection_name,
    milvus_address,
    rows_of,
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
from ecrs_seed.changed_vectors import ChangedVectors
from ecrs_seed.errors import SeedError
from ecrs_seed.report import SeedReport

BATCH = 5_000
"""Rows per insert."""
FIELDS = {"sku", "vector", "cold_start_category"}
"""Fields of a collection."""

ROOT = "root"
INITIAL_PASSWORD = "Milvus"  # noqa: S105 - root's password in every new Milvus; `connect` changes it

UNAVAILABLE = (MilvusException, RpcError, OSError)
"""Exceptions of the client if Milvus cannot be reached, refuses a password or a call."""

NOT_FOUND = 100
"""Milvus' error code for a collection that does not exist."""


async def connect(settings: VectorSettings, *, wait_s: float | None = None) -> MilvusClient:
    """Connect as the configured user. If root still has its initial password, first set the configured one.

    Waits for Milvus, for at most `wait_s` seconds, then raises Unavailable. Raises SeedError if the settings
    name no Milvus.
    """
    if not settings.is_milvus:
        raise SeedError(f"ECRS_VECTORS is {settings.vectors!r}; expected milvus://host:port[/database]")
    address, user, password = milvus_address(settings), settings.milvus_user, settings.milvus_password

    async def attempt() -> MilvusClient:
        try:
            client = signed_in(address, token(user, password))
        except UNAVAILABLE as error:
            # Tried on any error: that of a refused password differs between versions of Milvus.
            if user == ROOT and password:
                _change_password(address, password)
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        try:
            # After a start, Milvus accepts a password before it has loaded its collections.
            if live := _live(client):
                _count(client, live)
        except UNAVAILABLE as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        return client

    return await wait_until(f"Milvus at {address['uri']}", attempt, limit_s=wait_s)


async def seed_milvus(
    bundle: Bundle,
    client: MilvusClient,
    changes: ChangedVectors,
    *,
    advance: Callable[[int], None] = lambda rows: None,
) -> SeedReport:
    """Load `product_vectors.txt` into a collection of the bundle's version, check it, and make it live.

    `changes` then adds what people changed. Does nothing if this version is live already: its collection was
    checked before, and cm has made the later changes. Calls `advance` with the number of rows written since
    the last call. Raises SeedError if a check fails, Unavailable if the journal or the item tower fails.
    """
    started = time.monotonic()
    name, rows = collection_name(bundle.version), bundle.count("product_vectors.txt")
    if _live(client) == name:
        if _is_whole(client, name):
            held = _count(client, name)
            return SeedReport("milvus", bundle.version, held, time.monotonic() - started, already_there=True)
        client.drop_alias(ALIAS)  # a collection with an alias cannot be dropped and created again
    skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), rows, bundle.manifest.dim)
    _fill(client, name, skus, vectors, advance)
    _check(client, name, skus, vectors)
    position = await changes.apply(client, name, START)
    _go_live(client, name)
    await changes.apply(client, name, position)  # those that recall made in the former collection meanwhile
    return SeedReport("milvus", bundle.version, rows, time.monotonic() - started)


def _fill(
    client: MilvusClient, name: str, skus: list[str], vectors: np.ndarray, advance: Callable[[int], None]
) -> None:
    client.drop_collection(name)  # the remains of a failed seed; no error if there is none
    create(client, name, vectors.shape[1])
    for start in range(0, len(skus), BATCH):
        client.insert(name, batch_of(skus, vectors, start))
        advance(min(BATCH, len(skus) - start))
    client.flush(name)
    client.create_index(name, index_for(client, len(skus)))
    client.load_collection(name)


def create(client: MilvusClient, name: str, width: int) -> None:
    """Create an empty collection of item vectors with `width` values, without an index."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("sku", DataType.VARCHAR, is_primary=True, max_length=MAX_SKU_BYTES)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
    schema.add_field("cold_start_category", DataType.INT64)  # see VectorStore.upsert
    client.create_collection(name, schema=schema, consistency_level=CONSISTENCY)


def batch_of(skus: list[str], vectors: np.ndarray, start: int) -> list[dict[str, Any]]:
    """Return the rows of one insert: at most BATCH, from index `start` on."""
    batch = slice(start, start + BATCH)
    return rows_of(skus[batch], vectors[batch], [0] * len(skus[batch]))


def index_for(client: MilvusClient | type[MilvusClient], products: int) -> IndexParams:
    """Return the index for a number of products: exact up to EXACT_INDEX_LIMIT, HNSW above.

    Up to there, a scan takes about a millisecond: see docs/decisions/0006-index-by-catalogue-size.md.
    """
    index = client.prepare_index_params()
    if products <= EXACT_INDEX_LIMIT:
        index.add_index("vector", index_type="FLAT", metric_type="L2")
    else:
        parameters = {"M": 16, "efConstruction": 200}
        index.add_index("vector", index_type="HNSW", metric_type="L2", params=parameters)
    return index


def _check(client: MilvusClient, name: str, skus: list[str], vectors: np.ndarray) -> None:
    """Raise SeedError unless the collection has all vectors and its index finds true neighbours."""
    count = _count(client, name)
    if count != len(skus):
        raise SeedError(f"{name}: {count:,} vectors, {len(skus):,} were written")
    recall = _recall(client, name, skus, vectors)
    if recall < MIN_INDEX_RECALL:
        raise SeedError(
            f"{name}: recall@{CHECKED_NEIGHBOURS} against brute force is {recall:.3f}, "
            f"at least {MIN_INDEX_RECALL}"
        )


def _recall(client: MilvusClient, name: str, skus: list[str], vectors: np.ndarray) -> float:
    """Return the share of a sample's true nearest neighbours that the index finds.

    Neighbours are compared by distance, because any of equally near items is correct.
    """
    n = min(CHECKED_NEIGHBOURS, len(skus))
    sample = sample_vectors(vectors)
    squared_lengths = np.square(vectors).sum(axis=1)
    hits = client.search(
        name, data=list(sample), limit=n, consistency_level="Strong", search_params=search_params(n)
    )
    correct = 0
    for vector, neighbours in zip(sample, hits, strict=True):
        distances = squared_lengths - 2 * (vectors @ vector) + vector @ vector
        farthest = np.partition(distances, n - 1)[n - 1]
        correct += sum(hit["distance"] <= farthest + DISTANCE_TOLERANCE for hit in neighbours)
    return correct / (len(sample) * n)


def _go_live(client: MilvusClient, name: str) -> None:
    """Move the alias. Keep the previously live collection, for a rollback, and drop older ones.

    If there is no alias, the previously live collection is unknown, and none is dropped.
    """
    previous = _live(client)
    if previous is None:
        client.create_alias(name, ALIAS)
        return
    client.alter_alias(name, ALIAS)
    for other in client.list_collections():
        if other.startswith(PREFIX) and other not in (name, previous):
            client.drop_collection(other)


def _live(client: MilvusClient) -> str | None:
    """Return the name of the live collection; None before the first seed."""
    try:
        # Not list_aliases, which searches only the default database in Milvus 2.3.
        return client.describe_collection(ALIAS)["collection_name"]
    except MilvusException as error:
        if error.code == NOT_FOUND:
            return None
        raise


def _is_whole(client: MilvusClient, name: str) -> bool:
    """Return True if a collection has the current fields and is not empty."""
    fields = {field["name"] for field in client.describe_collection(name)["fields"]}
    return fields == FIELDS and _count(client, name) > 0


def _count(client: MilvusClient, name: str) -> int:
    return client.query(name, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]


def signed_in(address: dict[str, str], with_token: str) -> MilvusClient:
    """Return a client with options `address`; raises one of UNAVAILABLE if the token is refused."""
    client = MilvusClient(**address, token=with_token, timeout=5)
    client.list_collections()  # fails if the token is refused
    return client


def _change_password(address: dict[str, str], password: str) -> None:
    try:
        client = signed_in(address, token(ROOT, INITIAL_PASSWORD))
        client.update_password(ROOT, INITIAL_PASSWORD, password)
    except UNAVAILABLE as error:
        raise Unavailable(f"root has neither the configured nor the initial password: {error}") from error

"""A separate database for tests in a shared Milvus server, and a seed of it without item changes."""

from collections.abc import Callable
from pathlib import Path

from pymilvus import MilvusClient

from ecrs.bundle import Bundle
from ecrs.serving.item_embedder import ItemEmbedder
from ecrs.settings import VectorSettings
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from ecrs_seed.changed_vectors import ChangedVectors
from ecrs_seed.milvus import connect, seed_milvus
from ecrs_seed.report import SeedReport


async def database(address: str, password: str | None, name: str) -> VectorSettings:
    """Create database `name` if missing, and return its settings; `address` is milvus://host:port."""
    client = await connect(VectorSettings(vectors=address, milvus_password=password), wait_s=60)
    if name not in client.list_databases():
        client.create_database(name)
    return VectorSettings(vectors=f"{address}/{name}", milvus_password=password)


async def seed(bundle: Bundle, client: MilvusClient, advance: Callable[[int], None] = print) -> SeedReport:
    """Seed a collection with the vectors of the bundle only."""

    async def no_tower() -> ItemEmbedder:
        raise AssertionError("no item was added")

    with SqliteItemJournal(Path(":memory:")) as journal:
        return await seed_milvus(bundle, client, ChangedVectors(bundle, journal, no_tower), advance=advance)

"""A separate database for tests in a shared Milvus server."""

from ecrs.settings import VectorSettings
from ecrs_seed.milvus import connect


async def database(address: str, password: str | None, name: str) -> VectorSettings:
    """Create database `name` if missing, and return its settings; `address` is milvus://host:port."""
    client = await connect(VectorSettings(vectors=address, milvus_password=password), wait_s=60)
    if name not in client.list_databases():
        client.create_database(name)
    return VectorSettings(vectors=f"{address}/{name}", milvus_password=password)

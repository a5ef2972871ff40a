"""A service under test is a real grpc.aio server on a free port, called through a real channel."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import grpc
import pytest

from ecrs.rpc import server
from ecrs.rpc.settings import ServerSettings


class Start(Protocol):
    """Starts a service, and returns a channel to it and the running service."""

    async def __call__(
        self, service: server.Service, **settings: Any
    ) -> tuple[grpc.aio.Channel, server.RunningService]: ...


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Return the function that starts services; they stop when the test ends."""
    async with AsyncExitStack() as stack:

        async def start_one(
            service: server.Service, **settings: Any
        ) -> tuple[grpc.aio.Channel, server.RunningService]:
            quick = {"port": 0, "metrics_port": 0, "check_interval_s": 0.02, "grace_s": 2.0}
            built = ServerSettings(**quick | settings)
            running = await stack.enter_async_context(server.running_service(service, built))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{running.port}"))
            return channel, running

        yield start_one

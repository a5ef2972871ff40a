"""A service under test is a real grpc.aio server on a free port, called through a real channel."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import grpc
import pytest

from ecrs.rpc import server
from ecrs.rpc.settings import ServerSettings

Start = Callable[[server.Service], Awaitable[tuple[grpc.aio.Channel, server.RunningService]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Return a function that starts a service, and returns a channel to it and the running service."""
    async with AsyncExitStack() as stack:

        async def start_one(service: server.Service) -> tuple[grpc.aio.Channel, server.RunningService]:
            settings = ServerSettings(port=0, metrics_port=0, check_interval_s=0.02, grace_s=2.0)
            running = await stack.enter_async_context(server.running_service(service, settings))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{running.port}"))
            return channel, running

        yield start_one

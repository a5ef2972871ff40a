"""A service behind the gateway: called behind its breaker, and asked how it is."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from ecrs.kit.breaker import Breaker
from ecrs.kit.client import call, send
from ecrs.kit.errors import Unavailable
from ecrs.kit.server import FULL

CHECK_TIMEOUT_S = 1.0


class Peer:
    """One service, and what is known of it."""

    def __init__(self, name: str, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._name = name
        self._health = HealthStub(channel)
        self._breaker = Breaker(name)

    async def call(self, method: Callable[..., Awaitable[Any]], request: Any, timeout_s: float) -> Any:
        """`method`'s reply; Unavailable, without a call, while the service is known to be away."""
        with self._breaker.guard(timeout_s):
            return await call(self._name, method, request, timeout_s)

    async def check(self) -> None:
        """A Fault while something stands in for the service: it is away, it says that it lacks something, or
        calls to it fail, whatever it says."""
        request = HealthCheckRequest(service=FULL)
        reply = await send(self._name, self._health.Check, request, CHECK_TIMEOUT_S)
        if reply.status != HealthCheckResponse.SERVING:
            raise Unavailable(f"{self._name} is not in full service")
        if self._breaker.keeps_away:
            raise Unavailable(f"calls to {self._name} fail")

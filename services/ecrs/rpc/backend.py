"""A backend service: called through a circuit breaker, and checked for its health."""

import grpc
from grpc.aio import UnaryUnaryMultiCallable
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from ecrs.rpc.breaker import CircuitBreaker
from ecrs.rpc.client import ErrorReply, Request, call, send
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.server import FULL

CHECK_TIMEOUT_S = 1.0


class Backend:
    """One service behind this one; `channel` is open for the life of the program."""

    def __init__(self, name: str, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._name = name
        self._check_health = HealthStub(channel).Check  # type: ignore[attr-defined]
        self._breaker = CircuitBreaker(name)

    async def call(
        self, method: "UnaryUnaryMultiCallable[Request, ErrorReply]", request: Request, timeout_s: float
    ) -> ErrorReply:
        """Call `method` and return its reply. Raises Unavailable without a call while the breaker is open."""
        with self._breaker.guard(timeout_s):
            return await call(self._name, method, request, timeout_s)

    async def check(self) -> None:
        """Raise a Fault if the service is away, misses a dependency, or if calls to it fail."""
        request = HealthCheckRequest(service=FULL)
        reply = await send(self._name, self._check_health, request, CHECK_TIMEOUT_S)
        if reply.status != HealthCheckResponse.SERVING:
            raise Unavailable(f"{self._name} is not in full service")
        if self._breaker.is_open:
            raise Unavailable(f"calls to {self._name} fail")

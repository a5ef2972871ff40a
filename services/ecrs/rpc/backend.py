"""Client of a backend service: calls it through a circuit breaker and checks its health."""

import grpc
from grpc.aio import UnaryUnaryMultiCallable
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from ecrs.rpc.breaker import CircuitBreaker
from ecrs.rpc.client import ErrorReply, Request, call, send
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.server import FULL

CHECK_TIMEOUT_S = 1.0
"""Deadline of a health check."""


class Backend:
    """A service that this one depends on.

    `channel` must stay open for as long as the backend is used. `name` appears in error texts and labels the
    breaker's metric.
    """

    def __init__(self, name: str, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._name = name
        self._check_health = HealthStub(channel).Check  # type: ignore[attr-defined]
        self._breaker = CircuitBreaker(name)

    async def call(
        self, method: "UnaryUnaryMultiCallable[Request, ErrorReply]", request: Request, timeout_s: float
    ) -> ErrorReply:
        """Call `method` and return its reply.

        Raises Unavailable without making the call while the breaker is open, and otherwise whatever
        `ecrs.rpc.client.call` raises.
        """
        with self._breaker.guard(timeout_s):
            return await call(self._name, method, request, timeout_s)

    async def check(self) -> None:
        """Raise a Fault unless the service is fully healthy and the breaker is closed.

        Fully healthy means that the service is SERVING and that none of its own dependencies fails.
        """
        request = HealthCheckRequest(service=FULL)
        reply = await send(self._name, self._check_health, request, CHECK_TIMEOUT_S)
        if reply.status != HealthCheckResponse.SERVING:
            raise Unavailable(f"{self._name} is not serving or is missing a dependency")
        if self._breaker.is_open:
            raise Unavailable(f"calls to {self._name} fail")

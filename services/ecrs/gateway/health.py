"""When the gateway says that it is there.

It answers whatever is away, so once it is SERVING it stays: a part's trouble must not take the shop's
entry out of a load balancer. At the start it waits a while, for answers worth giving.
"""

import asyncio
import time
from collections.abc import Mapping

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from ecrs.kit.client import send
from ecrs.kit.errors import Fault, Unavailable

CHECK_TIMEOUT_S = 1.0


class Peers:
    """The services behind the gateway, and how long to wait for the last of them."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], patience_s: float) -> None:
        self._stubs = {name: HealthStub(channel) for name, channel in channels.items()}
        self._until = time.monotonic() + patience_s
        self._waited = False

    async def check(self) -> None:
        """Unavailable, naming who is not SERVING, until all were once or patience is at its end."""
        if self._waited:
            return
        reasons = await asyncio.gather(*(_reason(name, stub) for name, stub in self._stubs.items()))
        if any(reasons) and time.monotonic() < self._until:
            raise Unavailable("; ".join(filter(None, reasons)))
        self._waited = True


async def _reason(name: str, stub: HealthStub) -> str:
    try:
        reply = await send(name, stub.Check, HealthCheckRequest(), CHECK_TIMEOUT_S)
    except Fault as fault:
        return fault.text
    return "" if reply.status == HealthCheckResponse.SERVING else f"{name} is not serving"

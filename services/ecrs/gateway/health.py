"""The gateway can answer when the services it needs can; without rank it keeps recall's order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from ecrs.kit.client import send
from ecrs.kit.errors import Fault, Unavailable

CHECK_TIMEOUT_S = 1.0


def check_peers(channels: Mapping[str, grpc.aio.Channel]) -> Callable[[], Awaitable[None]]:
    """A check that raises Unavailable naming every service that is not SERVING."""
    stubs = {name: HealthStub(channel) for name, channel in channels.items()}

    async def check() -> None:
        reasons = await asyncio.gather(*(_reason(name, stub) for name, stub in stubs.items()))
        if any(reasons):
            raise Unavailable("; ".join(filter(None, reasons)))

    return check


async def _reason(name: str, stub: HealthStub) -> str:
    try:
        reply = await send(name, stub.Check, HealthCheckRequest(), CHECK_TIMEOUT_S)
    except Fault as fault:
        return fault.text
    return "" if reply.status == HealthCheckResponse.SERVING else f"{name} is not serving"

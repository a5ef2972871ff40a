"""Attacks by connections: half-open, idle, short, or with streams that never end."""

import asyncio
import contextlib

from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from ecrs.ports import METRICS_OFFSET, PORTS
from tests.attack.attack import attack
from tests.attack.shop import CALL_LIMIT_S, HOLD_S, Shop, at_rate, connected

GRPC, HTTP = PORTS["gateway"], PORTS["gateway"] + METRICS_OFFSET
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(CALL_LIMIT_S):
        return await asyncio.open_connection("127.0.0.1", port)


async def exchange(port: int, *parts: bytes, pause_s: float = 0.0) -> None:
    """Open a connection, send the parts with a pause after each, and read until the server closes it."""
    reader, writer = await opened(port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(CALL_LIMIT_S):
            await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@attack()
async def three_hundred_half_open_http_requests_ended_together(shop: Shop) -> None:
    begin, end = REQUEST[:-2], REQUEST[-2:]
    requests = (exchange(HTTP, begin, end, pause_s=HOLD_S - CALL_LIMIT_S) for _ in range(300))
    await asyncio.gather(*requests, return_exceptions=True)


@attack()
async def sixty_scrapes_a_second(shop: Shop) -> None:
    await at_rate(60, lambda _: exchange(HTTP, REQUEST))


@attack()
async def an_endless_http_header(shop: Shop) -> None:
    line = b"X-Line: " + b"x" * 1000 + b"\r\n"
    await at_rate(10, lambda _: exchange(HTTP, REQUEST[:-2], *[line] * 1000))


@attack()
async def a_hundred_connections_a_second_that_send_no_grpc(shop: Shop) -> None:
    await at_rate(100, lambda _: exchange(GRPC, REQUEST))


@attack()
async def two_hundred_idle_connections(shop: Shop) -> None:
    connections = await asyncio.gather(*(opened(GRPC) for _ in range(200)), return_exceptions=True)
    await asyncio.sleep(HOLD_S)
    for connection in connections:
        if not isinstance(connection, BaseException):
            connection[1].close()


@attack()
async def two_thousand_health_watches(shop: Shop) -> None:
    async with connected("gateway") as channel:
        stub = HealthStub(channel)
        watches = [stub.Watch(HealthCheckRequest(), timeout=HOLD_S) for _ in range(2_000)]

        async def listen(number: int) -> None:
            async for _ in watches[number]:
                pass

        await at_rate(len(watches), listen, hold_s=1.0)

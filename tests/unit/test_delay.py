"""The delaying proxy of the chaos tests delays an answer once, and only while a delay is set."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

import pytest

from tests.delay import Route

LATE_S = 0.2


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


@pytest.fixture
async def connection() -> AsyncIterator[tuple[Route, StreamReader, StreamWriter]]:
    """A route to an echo server, and a connection through it."""
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        route = Route("127.0.0.1", server.sockets[0].getsockname()[1])
        async with await asyncio.start_server(route.carry, "127.0.0.1", 0) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())
            yield route, reader, writer
            writer.close()


async def test_answer_in_several_chunks_is_delayed_once(
    connection: tuple[Route, StreamReader, StreamWriter],
) -> None:
    route, reader, writer = connection
    clock = asyncio.get_running_loop().time
    for delay_s in (0.0, LATE_S, 0.0):
        route.delay_s = delay_s
        started = clock()
        for piece in range(5):
            writer.write(b"%d\n" % piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        assert [await reader.readline() for _ in range(5)] == [b"%d\n" % piece for piece in range(5)]
        assert delay_s <= clock() - started < delay_s + LATE_S


async def test_closing_one_side_closes_both(
    connection: tuple[Route, StreamReader, StreamWriter],
) -> None:
    _, reader, writer = connection
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""

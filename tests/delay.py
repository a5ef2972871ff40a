"""A TCP proxy that delays what a part sends to its callers, on connections that stay open.

    python delay.py --host 127.0.0.1 --control 7000 um=7001:127.0.0.1:8910 redis=7002:redis:6379

A line `um 0.3` sent to the control port delays every byte that um sends from now on by 0.3 s, and is answered
with `ok`; `um 0` ends the delay. It uses the standard library only, because in the compose profile it runs in
a container.
"""

import argparse
import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter

CHUNK = 65_536


class Route:
    """Forwards any number of connections to one part, whose answers it delays by `delay_s`."""

    def __init__(self, host: str, port: int) -> None:
        self.delay_s = 0.0
        self._target = (host, port)

    async def carry(self, caller: StreamReader, to_caller: StreamWriter) -> None:
        """Forward one connection until either end closes it."""
        try:
            part, to_part = await asyncio.open_connection(*self._target)
        except OSError:
            to_caller.close()
            return
        pumps = [
            asyncio.create_task(self._pump(caller, to_part, late=False)),
            asyncio.create_task(self._pump(part, to_caller, late=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            to_part.close()
            to_caller.close()

    async def _pump(self, source: StreamReader, sink: StreamWriter, *, late: bool) -> None:
        """Forward bytes until the source ends.

        Reading goes on while earlier bytes wait for their time, so that an answer in many pieces is delayed
        once.
        """
        clock = asyncio.get_running_loop().time
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            with contextlib.suppress(OSError):
                while chunk := await source.read(CHUNK):
                    waiting.put_nowait((clock() + (self.delay_s if late else 0.0), chunk))
            waiting.put_nowait((clock(), b""))

        async def write() -> None:
            while True:
                due, chunk = await waiting.get()
                if not chunk:
                    return
                await asyncio.sleep(due - clock())
                sink.write(chunk)
                await sink.drain()

        with contextlib.suppress(OSError):
            reading = asyncio.create_task(read())
            try:
                await write()
            finally:
                reading.cancel()


def set_delay(control: tuple[str, int], part: str, seconds: float) -> None:
    """Delay the answers of `part` by `seconds` from now on; `control` is the proxy's control address."""
    with socket.create_connection(control, timeout=5) as connection:
        connection.sendall(f"{part} {seconds}\n".encode())
        assert connection.recv(16) == b"ok\n", f"the proxy does not know {part}"


async def serve(host: str, control: int, routes: dict[str, tuple[int, Route]]) -> None:
    async def handle_command(reader: StreamReader, writer: StreamWriter) -> None:
        if line := await reader.readline():  # an empty connection is a health check
            part, seconds = line.decode().split()
            routes[part][1].delay_s = float(seconds)
            writer.write(b"ok\n")
        writer.close()

    servers = [await asyncio.start_server(route.carry, host, port) for port, route in routes.values()]
    servers.append(await asyncio.start_server(handle_command, host, control))
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("routes", nargs="+", metavar="NAME=PORT:HOST:PORT")
    options = parser.parse_args()
    routes = {}
    for text in options.routes:
        name, _, rest = text.partition("=")
        port, host, target = rest.split(":")
        routes[name] = (int(port), Route(host, int(target)))
    asyncio.run(serve(options.host, options.control, routes))


if __name__ == "__main__":
    main()

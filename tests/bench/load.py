"""Load on a gateway, from a process of its own.

In a closed loop each client asks again when it has its answer. In an open one calls leave at a fixed rate,
whatever becomes of those before, and a call's time counts from the moment it was due: a stall is not hidden.

python -m tests.bench.load: users' ids on the first line of standard input, then an `Order` a line as JSON;
for each prints its `Sample`.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from subprocess import PIPE
from typing import Self

import grpc

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from tests.bench.processes import ROOT

CLOSED, OPEN = "closed", "open"
TIMEOUT_S = {CLOSED: 5.0, OPEN: 2.0}
CHANNELS = 8
"""Connections of the open loop, used in turn: one would be one worker's of a gateway that has several."""


@dataclass(frozen=True)
class Order:
    """What to do: `loop` is CLOSED, for so many `clients`, or OPEN, at so many calls a second, `rate`."""

    target: str
    loop: str
    seconds: float
    clients: int = 0
    rate: float = 0.0


@dataclass
class Sample:
    """Calls of one measurement: seconds each answered one took, and counts of all others.

    `seconds`, from the first call to the last answer; `late_s`, how late the generator itself sent each
    call of an open loop.
    """

    took_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    failed: int = 0
    shed: int = 0
    degraded: int = 0

    async def ask(self, stub: ASServiceStub, user: str, due: float, timeout_s: float) -> None:
        try:
            reply = await stub.as_call(ASRequest(user_id=user), timeout=timeout_s)
        except grpc.RpcError as error:
            refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            self.shed, self.failed = self.shed + refused, self.failed + (not refused)
            return
        took = time.perf_counter() - due
        if reply.error.code != 200 or not reply.item_infos:
            self.failed += 1
            return
        self.took_s.append(took)
        self.degraded += bool(reply.degraded)


async def closed_loop(target: str, clients: int, seconds: float, users: Sequence[str]) -> Sample:
    sample = Sample()
    begun = time.perf_counter()

    async def client(number: int) -> None:
        async with _channel(target) as channel:
            stub = ASServiceStub(channel)
            for user in itertools.islice(itertools.cycle(users), number, None):
                due = time.perf_counter()
                if due >= begun + seconds:
                    return
                await sample.ask(stub, user, due, TIMEOUT_S[CLOSED])

    await asyncio.gather(*map(client, range(clients)))
    sample.seconds = time.perf_counter() - begun
    return sample


async def open_loop(target: str, rate: float, seconds: float, users: Sequence[str]) -> Sample:
    sample = Sample()
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(_channel(target)) for _ in range(CHANNELS)]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        stubs = [ASServiceStub(channel) for channel in channels]
        begun = time.perf_counter()
        calls = []
        for due, stub, user in zip(
            _schedule(begun, rate, seconds), itertools.cycle(stubs), itertools.cycle(users), strict=False
        ):
            await asyncio.sleep(due - time.perf_counter())
            sample.late_s.append(time.perf_counter() - due)
            calls.append(asyncio.create_task(sample.ask(stub, user, due, TIMEOUT_S[OPEN])))
        await asyncio.gather(*calls)
        sample.seconds = time.perf_counter() - begun
    return sample


def _schedule(begun: float, rate: float, seconds: float) -> Iterator[float]:
    return (begun + number / rate for number in range(max(1, round(rate * seconds))))


def _channel(target: str) -> grpc.aio.Channel:
    """With a connection of its own."""
    return grpc.aio.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])


class Generator:
    """The process, for whoever wants load made."""

    def __init__(self, users: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"], stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT
        )
        self._send(" ".join(users))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def run(self, order: Order) -> Sample:
        self._send(json.dumps(asdict(order)))
        assert self._process.stdout is not None
        return Sample(**json.loads(self._process.stdout.readline()))

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def main() -> None:
    users = sys.stdin.readline().split()
    for line in sys.stdin:
        order = Order(**json.loads(line))
        if order.loop == CLOSED:
            sample = asyncio.run(closed_loop(order.target, order.clients, order.seconds, users))
        else:
            sample = asyncio.run(open_loop(order.target, order.rate, order.seconds, users))
        print(json.dumps(asdict(sample)), flush=True)


if __name__ == "__main__":
    main()

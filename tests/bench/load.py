"""Generates load on a gateway, from a separate process.

In a closed loop, each client makes its next call as soon as it has an answer. In an open loop, calls start at
a fixed rate, no matter how long earlier ones take, and the time of a call counts from when it was due, so
that a stall shows in all calls that it delayed.

python -m tests.bench.load: reads user ids from the first line of standard input and then one `LoadPlan` per
line, as JSON; prints a `Sample` as JSON for each.
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
"""Connections of the open loop, used in turn: if a gateway has several workers, one connection reaches only
one."""


@dataclass(frozen=True)
class LoadPlan:
    """The load to generate: `loop` is CLOSED with `clients` clients, or OPEN with `rate` calls per second."""

    target: str
    loop: str
    seconds: float
    clients: int = 0
    rate: float = 0.0


@dataclass
class Sample:
    """The calls of one measurement.

    `took_s` has the time of each answered call, of which `degraded` used a fallback; `failed` and `shed`
    count all other calls. `seconds` is the time from the first call to the last answer, and `late_s` the
    delay with which the generator itself sent each call of an open loop.
    """

    took_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    failed: int = 0
    shed: int = 0
    degraded: int = 0

    async def call(self, stub: ASServiceStub, user: str, due: float, timeout_s: float) -> None:
        try:
            reply = await stub.as_call(ASRequest(user_id=user), timeout=timeout_s)
        except grpc.RpcError as error:
            shed = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            self.shed, self.failed = self.shed + shed, self.failed + (not shed)
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
                await sample.call(stub, user, due, TIMEOUT_S[CLOSED])

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
            calls.append(asyncio.create_task(sample.call(stub, user, due, TIMEOUT_S[OPEN])))
        await asyncio.gather(*calls)
        sample.seconds = time.perf_counter() - begun
    return sample


def _schedule(begun: float, rate: float, seconds: float) -> Iterator[float]:
    return (begun + number / rate for number in range(max(1, round(rate * seconds))))


def _channel(target: str) -> grpc.aio.Channel:
    """Return a channel that shares its connection with no other channel."""
    return grpc.aio.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])


class Generator:
    """Runs this module in a process and makes it generate load."""

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

    def run(self, plan: LoadPlan) -> Sample:
        self._send(json.dumps(asdict(plan)))
        assert self._process.stdout is not None
        return Sample(**json.loads(self._process.stdout.readline()))

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def main() -> None:
    users = sys.stdin.readline().split()
    for line in sys.stdin:
        plan = LoadPlan(**json.loads(line))
        if plan.loop == CLOSED:
            sample = asyncio.run(closed_loop(plan.target, plan.clients, plan.seconds, users))
        else:
            sample = asyncio.run(open_loop(plan.target, plan.rate, plan.seconds, users))
        print(json.dumps(asdict(sample)), flush=True)


if __name__ == "__main__":
    main()

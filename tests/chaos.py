"""Break a part of a running platform under steady load, mend it, and tell what the shop's users saw.

    python -m tests.chaos dns:///gateway:8930 USER…

is the load alone: a line of JSON a call, until standard input ends.
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import grpc

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.rpc.client import OPTIONS

RATE = 10
"""Calls a second, whatever becomes of those before."""
DEADLINE_S = 1.0
SLOW_S = 0.3
"""How late a slow part is."""
USERS = ("1", "8888", *map(str, range(101, 120)))
"""Known to the tiny bundle."""
CLEAN = 10
"""So many full answers in a row are full service."""
KEPT = {"item: last read"}
"""Need not stand in when the profile store is away: cm keeps records for ECRS_ITEM_AGE_S."""
RESULTS = Path(__file__).parents[1] / "artifacts" / "chaos" / "chaos.json"

COLUMNS = ("part", "fault", "calls", "valid", "in_deadline", "degraded", "recovered_s")


@dataclass(frozen=True)
class Call:
    """When it was made, time.monotonic(), which all containers of a machine share; how it ended."""

    at: float
    took_s: float
    valid: bool
    degraded: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True)
class Case:
    """What one fault did: counts of calls, and seconds from mending to full service."""

    part: str
    fault: str
    calls: int
    valid: int
    in_deadline: int
    degraded: dict[str, int]
    recovered_s: float
    errors: list[str]

    def besides(self, wanted: Set[str]) -> int:
        """How often something else than `wanted` stood in."""
        return sum(count for fallback, count in self.degraded.items() if fallback not in wanted)


@dataclass
class Load:
    """Calls for users in turn, at RATE, by a client that keeps to the platform's advice to clients."""

    deadline_s: float
    calls: list[Call] = field(default_factory=list)

    @classmethod
    @contextmanager
    def on(cls, gateway: str, users: Sequence[str], deadline_s: float = DEADLINE_S) -> Iterator["Load"]:
        load = cls(deadline_s)
        with calling(gateway, users, deadline_s, load.calls.append):
            yield load

    @classmethod
    @contextmanager
    def elsewhere(cls, command: Sequence[str]) -> Iterator["Load"]:
        """By a process of its own, in a container maybe, that runs this module as a program."""
        load = cls(DEADLINE_S)
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
            ThreadPoolExecutor(1) as pool,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            heard = pool.submit(load._listen, process.stdout)
            try:
                yield load
            finally:
                process.stdin.close()
            heard.result()

    def _listen(self, lines: Iterable[str]) -> None:
        for line in lines:
            call = json.loads(line)
            self.calls.append(Call(**call | {"degraded": tuple(call["degraded"])}))

    def full_service(self, since: float, limit_s: float) -> float:
        """Seconds from `since` to the first of CLEAN full answers in a row, the newest; AssertionError past
        the limit."""
        while True:
            newest = sorted((call for call in self.calls if call.at >= since), key=lambda call: call.at)
            newest = newest[-CLEAN:]
            if len(newest) == CLEAN and all(call.valid and not call.degraded for call in newest):
                return newest[0].at - since
            last = newest[-1] if newest else "no call"
            assert time.monotonic() - since < limit_s, f"no full service after {limit_s} s: {last}"
            time.sleep(0.1)


@contextmanager
def calling(
    gateway: str, users: Sequence[str], deadline_s: float, tell: Callable[[Call], object]
) -> Iterator[None]:
    """Calls at RATE for the time of the context; each is told of when it has ended."""
    ended = threading.Event()
    with grpc.insecure_channel(gateway, options=OPTIONS) as channel, ThreadPoolExecutor(4 * RATE) as pool:
        stub = ASServiceStub(channel)

        def call(user: str) -> None:
            begun = time.monotonic()
            try:
                reply = stub.as_call(ASRequest(user_id=user), timeout=deadline_s, wait_for_ready=True)
                valid = reply.error.code == 200 and len(reply.item_infos) > 0
                degraded = tuple(f"{one.stage}: {one.fallback}" for one in reply.degraded)
                error = "" if valid else str(reply.error)
            except grpc.RpcError as failed:
                valid, degraded, error = False, (), f"{failed.code().name}: {failed.details()}"
            tell(Call(begun, time.monotonic() - begun, valid, degraded, error))

        def keep_calling() -> None:
            begun, number = time.monotonic(), 0
            while not ended.wait(max(0.0, begun + number / RATE - time.monotonic())):
                pool.submit(call, users[number % len(users)])
                number += 1

        thread = threading.Thread(target=keep_calling)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def suffer(
    load: Load,
    part: str,
    fault: str,
    damage: Callable[[], object],
    mend: Callable[[], object],
    *,
    hold_s: float = 3.0,
    recovery_limit_s: float,
) -> Case:
    """Do `damage`, hold it, `mend` it, wait for full service."""
    load.full_service(time.monotonic(), recovery_limit_s)
    begun = time.monotonic()
    try:
        damage()
        time.sleep(hold_s)
    finally:
        mend()
    recovered_s = load.full_service(time.monotonic(), recovery_limit_s)
    calls = [call for call in load.calls if call.at >= begun]
    return Case(
        part,
        fault,
        len(calls),
        sum(call.valid for call in calls),
        sum(call.took_s <= load.deadline_s for call in calls),
        dict(Counter(one for call in calls for one in call.degraded)),
        round(recovered_s, 2),
        sorted({call.error for call in calls if call.error}),
    )


@contextmanager
def written(profile: str) -> Iterator[list[Case]]:
    """Cases to add to; at the end they are printed as a table, and written to RESULTS."""
    cases: list[Case] = []
    yield cases
    rows = [asdict(case) for case in cases]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(before | {profile: rows}, indent=1) + "\n")
    print("\n" + " | ".join(COLUMNS))
    for row in rows:
        print(" | ".join(str(row[name]) for name in COLUMNS))


def teller(file: TextIO) -> Callable[[Call], None]:
    """Writes a line of JSON a call, whole, whichever threads make the calls."""
    one_at_a_time = threading.Lock()

    def tell(call: Call) -> None:
        with one_at_a_time:
            print(json.dumps(asdict(call)), file=file, flush=True)

    return tell


def main() -> None:
    gateway, *users = sys.argv[1:]
    with calling(gateway, users, DEADLINE_S, teller(sys.stdout)):
        sys.stdin.read()


if __name__ == "__main__":
    main()

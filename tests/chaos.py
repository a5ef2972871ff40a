"""Break a part of a running platform under steady load, repair it, and report what the shop's users observed.

    python -m tests.chaos dns:///gateway:8930 USER…

generates the load only: it prints a line of JSON per call, until standard input ends.
"""

import argparse
import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import grpc

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.rpc.client import OPTIONS

RATE = 10
"""Calls per second, whether or not earlier ones have ended."""
DEADLINE_S = 1.0
SLOW_S = 0.3
"""Delay of a slow part's answers."""
USERS = ("1", "8888", *map(str, range(101, 120)))
"""Ids of users in the tiny bundle."""
FULL_ANSWERS_REQUIRED = 10
"""Number of consecutive full answers that count as full service."""
ITEM_FALLBACKS = {"item: last read", "item: popular"}
"""Fallbacks for item records that cannot be read."""
OPTIONAL_FALLBACKS = {"cm": {"item: popular"}, "redis": ITEM_FALLBACKS, "valkey": ITEM_FALLBACKS}
"""Fallbacks that may stay unused, by part: popular items fill up a list if too few records were read before,
and while the store is down, cm serves the records that it has cached for ECRS_ITEM_AGE_S."""
RESULTS = Path(__file__).parents[1] / "artifacts" / "chaos" / "chaos.json"

COLUMNS = ("part", "fault", "calls", "valid", "in_deadline", "degraded", "recovered_s")


@dataclass(frozen=True)
class Call:
    """One call: its start by time.monotonic(), which all containers of a machine share, and its outcome.

    `items` is the number of items in the answer.
    """

    at: float
    took_s: float
    valid: bool
    degraded: tuple[str, ...]
    error: str = ""
    items: int = 0


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What callers observed of one fault: counts of calls, and seconds from its end to full service.

    `recovered_s` is None if full service did not come back.
    """

    calls: int
    valid: int
    in_deadline: int
    degraded: dict[str, int]
    recovered_s: float | None
    errors: list[str]

    @staticmethod
    def counts(calls: Sequence[Call], deadline_s: float) -> dict[str, Any]:
        """Return the fields that count `calls`: all but `recovered_s`."""
        return {
            "calls": len(calls),
            "valid": sum(call.valid for call in calls),
            "in_deadline": sum(call.took_s <= deadline_s for call in calls),
            "degraded": dict(Counter(fallback for call in calls for fallback in call.degraded)),
            "errors": sorted({call.error for call in calls if call.error}),
        }


@dataclass(frozen=True, kw_only=True)
class Case(Observed):
    """The effect of one fault of one part."""

    part: str
    fault: str

    def count_other_fallbacks(self, wanted: Set[str]) -> int:
        """Return how often fallbacks other than `wanted` were used."""
        return sum(count for fallback, count in self.degraded.items() if fallback not in wanted)


@dataclass
class Load:
    """Calls for the users in turn, by a client configured as the platform advises its clients."""

    deadline_s: float
    calls: list[Call] = field(default_factory=list)

    @classmethod
    @contextmanager
    def on(cls, gateway: str, users: Sequence[str], deadline_s: float = DEADLINE_S) -> Iterator["Load"]:
        load = cls(deadline_s)
        with make_calls(gateway, users, deadline_s, load.calls.append):
            yield load

    @classmethod
    @contextmanager
    def in_subprocess(cls, command: Sequence[str], deadline_s: float = DEADLINE_S) -> Iterator["Load"]:
        """Run `command`, which executes this module as a program, perhaps in a container, as the load.

        `deadline_s` must be the one of the command.
        """
        load = cls(deadline_s)
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
            ThreadPoolExecutor(1) as pool,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            reading = pool.submit(load._listen, process.stdout)
            try:
                yield load
            finally:
                process.stdin.close()
            reading.result()

    def _listen(self, lines: Iterable[str]) -> None:
        for line in lines:
            call = json.loads(line)
            self.calls.append(Call(**call | {"degraded": tuple(call["degraded"])}))

    def full_service(self, since: float, limit_s: float) -> float:
        """Wait until the newest FULL_ANSWERS_REQUIRED calls got full answers.

        Returns the seconds from `since` to the first of these calls. Raises AssertionError after `limit_s`.
        """
        while True:
            newest = sorted((call for call in self.calls if call.at >= since), key=lambda call: call.at)
            newest = newest[-FULL_ANSWERS_REQUIRED:]
            if len(newest) == FULL_ANSWERS_REQUIRED and all(
                call.valid and not call.degraded for call in newest
            ):
                return newest[0].at - since
            newest_call = newest[-1] if newest else "no call"
            assert time.monotonic() - since < limit_s, f"no full service after {limit_s} s: {newest_call}"
            time.sleep(0.1)


@contextmanager
def make_calls(
    gateway: str,
    users: Sequence[str],
    deadline_s: float,
    tell: Callable[[Call], object],
    rate: float = RATE,
) -> Iterator[None]:
    """Make `rate` calls per second while the context lasts; `tell` is called with each one that has ended."""
    ended = threading.Event()
    pool_size = 4 * math.ceil(rate)
    with grpc.insecure_channel(gateway, options=OPTIONS) as channel, ThreadPoolExecutor(pool_size) as pool:
        stub = ASServiceStub(channel)

        def call(user: str) -> None:
            started, items = time.monotonic(), 0
            try:
                reply = stub.as_call(ASRequest(user_id=user), timeout=deadline_s, wait_for_ready=True)
                items = len(reply.item_infos)
                valid = reply.error.code == 200 and items > 0
                degraded = tuple(
                    f"{degradation.stage}: {degradation.fallback}" for degradation in reply.degraded
                )
                error = "" if valid else str(reply.error)
            except grpc.RpcError as rpc_error:
                valid, degraded, error = False, (), f"{rpc_error.code().name}: {rpc_error.details()}"
            tell(Call(started, time.monotonic() - started, valid, degraded, error, items))

        def keep_calling() -> None:
            started, number = time.monotonic(), 0
            while not ended.wait(max(0.0, started + number / rate - time.monotonic())):
                pool.submit(call, users[number % len(users)])
                number += 1

        thread = threading.Thread(target=keep_calling)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def run_case(
    load: Load,
    part: str,
    fault: str,
    damage: Callable[[], object],
    mend: Callable[[], object],
    *,
    hold_s: float = 3.0,
    recovery_limit_s: float,
) -> Case:
    """Do `damage`, wait `hold_s`, `mend` it, and wait for full service."""
    load.full_service(time.monotonic(), recovery_limit_s)
    started = time.monotonic()
    try:
        damage()
        time.sleep(hold_s)
    finally:
        mend()
    recovered_s = load.full_service(time.monotonic(), recovery_limit_s)
    counts = Observed.counts([call for call in load.calls if call.at >= started], load.deadline_s)
    return Case(part=part, fault=fault, recovered_s=round(recovered_s, 2), **counts)


@contextmanager
def reported_cases(profile: str) -> Iterator[list[Case]]:
    """Yield a list to add cases to; at the end they are printed as a table and written to RESULTS."""
    cases: list[Case] = []
    yield cases
    rows = [asdict(case) for case in cases]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    profiles = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(profiles | {profile: rows}, indent=1) + "\n")
    print_table(COLUMNS, rows)


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the named columns of `rows`."""
    print("\n" + " | ".join(columns))
    for row in rows:
        print(" | ".join(str(row[name]) for name in columns))


def line_writer(file: TextIO) -> Callable[[Call], None]:
    """Return a function that writes a call as one line of JSON; threads may call it concurrently."""
    one_at_a_time = threading.Lock()

    def tell(call: Call) -> None:
        with one_at_a_time:
            print(json.dumps(asdict(call)), file=file, flush=True)

    return tell


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.chaos")
    parser.add_argument("gateway")
    parser.add_argument("users", nargs="+")
    parser.add_argument("--deadline-s", type=float, default=DEADLINE_S)
    parser.add_argument("--rate", type=float, default=RATE)
    given = parser.parse_args()
    with make_calls(given.gateway, given.users, given.deadline_s, line_writer(sys.stdout), given.rate):
        sys.stdin.read()


if __name__ == "__main__":
    main()

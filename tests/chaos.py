"""Break a part of a running platform under steady load, mend it, and tell what the shop's users saw."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub

RATE = 10
"""Calls a second, whatever becomes of those before."""
DEADLINE_S = 1.0
CLEAN = 10
"""So many full answers in a row are full service."""
RESULTS = Path(__file__).parents[1] / "artifacts" / "chaos" / "chaos.json"

COLUMNS = ("part", "fault", "calls", "valid", "in_deadline", "degraded", "recovered_s")


@dataclass(frozen=True)
class Call:
    """When it was made, time.monotonic(); how it ended."""

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


@dataclass
class Load:
    """Calls for users in turn, at RATE."""

    stub: ASServiceStub
    users: Sequence[str]
    calls: list[Call] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def on(cls, gateway: str, users: Sequence[str]) -> Iterator["Load"]:
        with grpc.insecure_channel(gateway) as channel, ThreadPoolExecutor(4 * RATE) as pool:
            load = cls(ASServiceStub(channel), users)
            thread = threading.Thread(target=load._run, args=(pool,))
            thread.start()
            try:
                yield load
            finally:
                load._stop.set()
                thread.join()

    def _run(self, pool: ThreadPoolExecutor) -> None:
        begun, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, begun + number / RATE - time.monotonic())):
            pool.submit(self._call, self.users[number % len(self.users)])
            number += 1

    def _call(self, user: str) -> None:
        begun = time.monotonic()
        try:
            reply = self.stub.as_call(ASRequest(user_id=user), timeout=DEADLINE_S)
            valid = reply.error.code == 200 and len(reply.item_infos) > 0
            degraded = tuple(f"{one.stage}: {one.fallback}" for one in reply.degraded)
            error = "" if valid else str(reply.error)
        except grpc.RpcError as failed:
            valid, degraded, error = False, (), f"{failed.code().name}: {failed.details()}"
        self.calls.append(Call(begun, time.monotonic() - begun, valid, degraded, error))

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
    damage()
    try:
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
        sum(call.took_s <= DEADLINE_S for call in calls),
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

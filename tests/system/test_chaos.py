"""Kills and pauses each process of the embedded platform under load."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from ecrs.probe import probe
from tests.chaos import ITEM_FALLBACKS, USERS, Case, Load, run_case
from tests.system.conftest import Up, children

pytestmark = pytest.mark.chaos

DEGRADED = {
    "um": {"user: request"},
    "cm": ITEM_FALLBACKS,
    "recall": {"recall: popular"},
    "rank": {"rank: retrieval order"},
    "valkey": {"user: request", *ITEM_FALLBACKS},
}
REPORTED_MISSING = {"valkey": {"um", "cm"}}
"""The services that the gateway reports as missing, by part, if these are not the part itself."""
NOTICE_LIMIT_S = 5.0
RECOVERY_LIMIT_S = 30.0
"""Longest time until full service after a process was killed and restarted; the goal is 10 s."""


@pytest.fixture(scope="module")
def load(up: Up) -> Iterator[Load]:
    with Load.on("127.0.0.1:8930", USERS) as load:
        yield load


def do_nothing() -> None:
    """Mend a killed process: `ecrs up` restarts it."""


def wait_until_missing(condition: Callable[[set[str]], bool]) -> None:
    """Return once `condition` holds for the dependencies that the gateway's health reports as missing."""
    deadline = time.monotonic() + NOTICE_LIMIT_S
    while not condition(set(probe("gateway").missing)):
        assert time.monotonic() < deadline, probe("gateway")
        time.sleep(0.05)


def hang(pid: int, missing: set[str]) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until_missing(missing.issubset)


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("part", DEGRADED)
def test_the_gateway_answers_in_time_whatever_is_killed_or_hangs(
    up: Up, load: Load, cases: list[Case], part: str, fault: str
) -> None:
    pid = children(up.run_dir)[part]
    missing = REPORTED_MISSING.get(part, {part})
    damage, mend = {
        "kill": (partial(os.kill, pid, signal.SIGKILL), do_nothing),
        "pause": (partial(hang, pid, missing), partial(os.kill, pid, signal.SIGCONT)),
    }[fault]
    case = run_case(load, part, fault, damage, mend, recovery_limit_s=RECOVERY_LIMIT_S)
    cases.append(case)
    assert case.valid == case.calls, case.errors
    assert case.in_deadline == case.calls
    assert set(case.degraded) <= DEGRADED[part]
    assert case.degraded or fault == "kill"  # a killed store is back after one or two calls
    wait_until_missing(lambda missing: not missing)

"""Each part of the embedded platform killed and stopped in its tracks, under load."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from ecrs.probe import probe
from tests.chaos import USERS, Case, Load, run_case
from tests.system.conftest import Up, children

pytestmark = pytest.mark.chaos

DEGRADED = {
    "um": {"user: request"},
    "cm": {"item: last read"},
    "recall": {"recall: popular"},
    "rank": {"rank: retrieval order"},
    "valkey": {"user: request", "item: last read"},
}
LACKS = {"valkey": {"um", "cm"}}
"""What the gateway says of it, where that is not the part itself."""
NOTICED_S = 5.0
RECOVERY_LIMIT_S = 30.0
"""Of a process that is started anew; the goal is 10 s."""


@pytest.fixture(scope="module")
def load(up: Up) -> Iterator[Load]:
    with Load.on("127.0.0.1:8930", USERS) as load:
        yield load


def nothing() -> None:
    """What is killed, `ecrs up` starts again."""


def noticed(condition: Callable[[set[str]], bool]) -> None:
    """Return once what the gateway's health says that it missing is so."""
    deadline = time.monotonic() + NOTICED_S
    while not condition(set(probe("gateway").missing)):
        assert time.monotonic() < deadline, probe("gateway")
        time.sleep(0.05)


def hang(pid: int, missing: set[str]) -> None:
    os.kill(pid, signal.SIGSTOP)
    noticed(missing.issubset)


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("part", DEGRADED)
def test_the_shop_shows_products_whatever_dies(
    up: Up, load: Load, cases: list[Case], part: str, fault: str
) -> None:
    broken = children(up.run_dir)[part]
    damage, mend = {
        "kill": (partial(os.kill, broken, signal.SIGKILL), nothing),
        "pause": (partial(hang, broken, LACKS.get(part, {part})), partial(os.kill, broken, signal.SIGCONT)),
    }[fault]
    case = run_case(load, part, fault, damage, mend, recovery_limit_s=RECOVERY_LIMIT_S)
    cases.append(case)
    assert case.valid == case.calls, case.errors
    assert case.in_deadline == case.calls
    assert set(case.degraded) <= DEGRADED[part]
    assert case.degraded or fault == "kill"  # a store that is killed is back within a call or two
    noticed(lambda missing: not missing)

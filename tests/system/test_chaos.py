"""Each part of the embedded platform killed and stopped in its tracks, under load."""

import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from tests.chaos import Case, Load, suffer, written
from tests.system.conftest import Up, children

DEGRADED = {
    "um": {"user: request"},
    "cm": {"item: last seen"},
    "recall": {"recall: popular"},
    "rank": {"rank: recall order"},
    "valkey": {"user: request", "item: last seen"},
}
RECOVERY_LIMIT_S = 30.0
"""Of a process that is started anew; the goal is 10 s."""


@pytest.fixture(scope="module")
def load(up: Up) -> Iterator[Load]:
    with Load.on("127.0.0.1:8930", ["1", "8888", *map(str, range(101, 120))]) as load:
        yield load


@pytest.fixture(scope="module")
def cases() -> Iterator[list[Case]]:
    with written("embedded") as cases:
        yield cases


def nothing() -> None:
    """What is killed, `ecrs up` starts again."""


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("part", DEGRADED)
def test_the_shop_shows_products_whatever_dies(
    up: Up, load: Load, cases: list[Case], part: str, fault: str
) -> None:
    broken = children(up.run_dir)[part]
    signals = {"kill": (signal.SIGKILL, None), "pause": (signal.SIGSTOP, signal.SIGCONT)}
    damage, mend = (partial(os.kill, broken, number) if number else nothing for number in signals[fault])
    case = suffer(load, part, fault, damage, mend, recovery_limit_s=RECOVERY_LIMIT_S)
    cases.append(case)
    assert case.valid == case.calls, case.errors
    assert case.in_deadline == case.calls
    assert set(case.degraded) <= DEGRADED[part]
    assert case.degraded or fault == "kill"  # a store that is killed is back within a call or two

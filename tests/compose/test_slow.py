"""Delays each container of the stack by 300 ms, under load.

Callers reach every container through a proxy. With a deadline of a second, some stages can wait for a delayed
container and need no fallback. The gateway's own deadline of 200 ms is tested in the embedded profile, where
each case takes only seconds.
"""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.chaos import ITEM_FALLBACKS, OPTIONAL_FALLBACKS, SLOW_S, Case, Load, run_case
from tests.compose.conftest import Stack
from tests.delay import set_delay

pytestmark = pytest.mark.chaos

CALLERS = ("um", "cm", "recall", "rank", "gateway")
CONTROL_PORT = 7000
RECOVERY_LIMIT_S = 10.0
MAX_OTHER_FALLBACKS = 8
"""Most fallbacks of other stages in at least forty calls.

A wait leaves less time for the stages that follow, and every five seconds a dozen health checks each start a
Python process, which slows down a machine with two cores.
"""
DEGRADED: dict[str, set[str]] = {
    "um": {"user: request"},  # this stage waits at most 300 ms, as does cm's; recall's and rank's wait longer
    "cm": ITEM_FALLBACKS,
    "recall": set(),
    "rank": set(),
    "redis": {"user: request", *ITEM_FALLBACKS},
    "milvus": {"recall: without vector"},  # this channel waits at most 250 ms, user tower included
    "serving-user-tower": {"recall: without vector"},
    "serving-ranker": set(),
}


@pytest.fixture(scope="module")
def control(stack: Stack) -> Iterator[tuple[str, int]]:
    """Put the proxy in front of each part of the stack; yields the proxy's control address."""
    start = partial(stack.compose, "up", "--detach", "--no-build", "--no-deps", "--wait", limit_s=180)
    with stack.overlaid("tests/compose/slow.yaml"):
        start("delay", *CALLERS)
        yield stack.address("delay", network="redis"), CONTROL_PORT
        stack.compose("rm", "--stop", "--force", "delay")
    start(*CALLERS)


@pytest.mark.parametrize("part", DEGRADED)
def test_the_gateway_answers_in_time_while_a_part_is_slow(
    stack: Stack, control: tuple[str, int], cases: list[Case], part: str
) -> None:
    delay = partial(set_delay, control, part)
    with Load.on(stack.gateway, stack.users()) as load:
        damage, mend = partial(delay, SLOW_S), partial(delay, 0.0)
        case = run_case(load, part, "slow by 300 ms", damage, mend, recovery_limit_s=RECOVERY_LIMIT_S)
    cases.append(case)
    assert case.valid == case.calls, case.errors
    assert case.in_deadline == case.calls
    assert DEGRADED[part] - OPTIONAL_FALLBACKS.get(part, set()) <= set(case.degraded)
    assert case.count_other_fallbacks(DEGRADED[part]) <= MAX_OTHER_FALLBACKS

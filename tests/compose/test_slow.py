"""Each part of the stack slow by 300 ms, under load.

Callers reach every part through a proxy. Within a second some stages can wait for so slow a part, and nothing
stands in for them; what the gateway's own 200 ms leave of that is tested in the embedded profile, where every
case takes seconds.
"""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.chaos import OPTIONAL_FALLBACKS, SLOW_S, Case, Load, run_case
from tests.compose.conftest import Stack
from tests.delay import set_delay

pytestmark = pytest.mark.chaos

CALLERS = ("um", "cm", "recall", "rank", "gateway")
CONTROL_PORT = 7000
RECOVERY_LIMIT_S = 10.0
HURRIED = 8
"""Of forty calls and more: a wait leaves less time to what follows, and every five seconds a dozen health
checks start a Python each, which on two cores is felt."""
DEGRADED: dict[str, set[str]] = {
    "um": {"user: request"},  # which waits 300 ms at most, as cm does; recall and rank longer
    "cm": {"item: last read"},
    "recall": set(),
    "rank": set(),
    "redis": {"user: request", "item: last read"},
    "milvus": {"recall: without vector"},  # 250 ms at most, with the user tower
    "serving-user-tower": {"recall: without vector"},
    "serving-ranker": set(),
}
MAY = {"redis": OPTIONAL_FALLBACKS}


@pytest.fixture(scope="module")
def control(stack: Stack) -> Iterator[tuple[str, int]]:
    """The stack with the proxy before each part; where to tell the proxy who is late."""
    start = partial(stack.compose, "up", "--detach", "--no-build", "--no-deps", "--wait", limit_s=180)
    with stack.overlaid("tests/compose/slow.yaml"):
        start("delay", *CALLERS)
        yield stack.address("delay"), CONTROL_PORT
        stack.compose("rm", "--stop", "--force", "delay")
    start(*CALLERS)


@pytest.mark.parametrize("part", DEGRADED)
def test_the_shop_shows_products_in_time_however_slow_a_part_is(
    stack: Stack, control: tuple[str, int], cases: list[Case], part: str
) -> None:
    late = partial(set_delay, control, part)
    with Load.on(stack.gateway, stack.users()) as load:
        damage, mend = partial(late, SLOW_S), partial(late, 0.0)
        case = run_case(load, part, "slow by 300 ms", damage, mend, recovery_limit_s=RECOVERY_LIMIT_S)
    cases.append(case)
    assert case.valid == case.calls, case.errors
    assert case.in_deadline == case.calls
    assert DEGRADED[part] - MAY.get(part, set()) <= set(case.degraded)
    assert case.count_other_fallbacks(DEGRADED[part]) <= HURRIED

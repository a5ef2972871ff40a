"""Stops, kills, pauses and disconnects each container of the stack under load."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos import ITEM_FALLBACKS, OPTIONAL_FALLBACKS, Case, Load, run_case
from tests.compose.conftest import PROJECT, Stack, run

pytestmark = pytest.mark.chaos

DEGRADED = {
    "um": {"user: request"},
    "cm": ITEM_FALLBACKS,
    "recall": {"recall: popular"},
    "rank": {"rank: retrieval order"},
    "redis": {"user: request", *ITEM_FALLBACKS},
    "milvus": {"recall: without vector"},
    "serving-user-tower": {"recall: without vector"},
    "serving-ranker": {"rank: retrieval order"},
}
FAULTS = ("stop", "pause", "kill", "cut")
LINK = Path(__file__).with_name("link.py")
IMAGE = "ecrs/app"
IN_NETWORK_OF = ["docker", "run", "--rm", "--user=0", "--cap-drop=ALL", "--cap-add=NET_ADMIN", "--network"]
"""Runs a container in the network of another one, with the right to change its interfaces."""
RECOVERY_LIMIT_S = 90.0
"""Longest time from the repair to full service, including the container's start. The goal is 10 s after
that."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize with all faults of each part, or with two of them unless --every-case is given.

    The pair alternates between stop with pause and kill with cut: one ends the part and one leaves it
    hanging.
    """
    if "fault" in metafunc.fixturenames:
        every = metafunc.config.getoption("every_case", False)
        cases = [
            (part, fault)
            for number, part in enumerate(DEGRADED)
            for fault in (FAULTS if every else FAULTS[number % 2 * 2 :][:2])
        ]
        metafunc.parametrize(("part", "fault"), cases)


@pytest.fixture(scope="module")
def load(stack: Stack) -> Iterator[Load]:
    with Load.on(stack.gateway, stack.users()) as load:
        yield load
    stack.wait_until_healthy(RECOVERY_LIMIT_S)


def damage_and_mend(stack: Stack, part: str, fault: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a function that inflicts the fault on a part, and one that ends it."""
    name = f"{PROJECT}-{part}-1"
    link = [*IN_NETWORK_OF, f"container:{name}", IMAGE, "python", "-c", LINK.read_text()]
    start = lambda: run("docker", "start", name)  # noqa: E731
    return {
        "stop": (lambda: run("docker", "stop", "--time", "30", name), start),
        "kill": (lambda: run("docker", "kill", name), start),
        "pause": (lambda: run("docker", "pause", name), lambda: run("docker", "unpause", name)),
        "cut": (lambda: run(*link, "down"), lambda: run(*link, "up")),
    }[fault]


def test_the_gateway_answers_in_time_whatever_fails(
    stack: Stack, load: Load, cases: list[Case], part: str, fault: str
) -> None:
    damage, mend = damage_and_mend(stack, part, fault)
    case = run_case(load, part, fault, damage, mend, recovery_limit_s=RECOVERY_LIMIT_S)
    cases.append(case)
    assert case.valid == case.calls, case.errors
    assert case.in_deadline == case.calls
    assert DEGRADED[part] - OPTIONAL_FALLBACKS.get(part, set()) <= set(case.degraded) <= DEGRADED[part]

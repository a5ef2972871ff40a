"""Twenty faults leak no asyncio tasks, sockets, threads or memory."""

import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecrs.ports import METRICS_OFFSET, PORTS
from tests.chaos import USERS, Load
from tests.system.conftest import Up, children

pytestmark = pytest.mark.chaos

PARTS = ("um", "cm", "recall", "rank", "valkey")
HOLD_S = 0.5
"""How long each fault lasts."""
SETTLE_LIMIT_S = 10.0
"""Longest wait after the last fault for unfinished work to end."""
TASKS, FILES, THREADS, MEMORY_MB = 3, 3, 2, 8
"""Allowed growth after the first ten faults, for work that happens to be unfinished.

A leak would be larger: it adds one per fault or one per call, and ten faults and hundreds of calls follow.
"""


@dataclass(frozen=True)
class Resources:
    """The resources that a process holds."""

    tasks: int
    files: int
    threads: int
    memory_mb: float

    @classmethod
    def of(cls, name: str, pid: int) -> "Resources":
        status = Path(f"/proc/{pid}/status").read_text()
        (threads,) = re.findall(r"^Threads:\s+(\d+)", status, re.MULTILINE)
        (memory_kb,) = re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        files = len(os.listdir(f"/proc/{pid}/fd"))
        tasks = _tasks(name) if name in PORTS else 0
        return cls(tasks, files, int(threads), int(memory_kb) / 1024)

    def is_within_bounds(self, before: "Resources") -> bool:
        return (
            self.tasks <= before.tasks + TASKS
            and self.files <= before.files + FILES
            and self.threads <= before.threads + THREADS
            and self.memory_mb <= before.memory_mb + MEMORY_MB
        )


def _tasks(service: str) -> int:
    address = f"http://127.0.0.1:{PORTS[service] + METRICS_OFFSET}/metrics"
    with urllib.request.urlopen(address, timeout=5) as reply:
        (tasks,) = re.findall(rb'^ecrs_tasks\{service="\w+"\} ([\d.]+)', reply.read(), re.MULTILINE)
    return int(float(tasks))


def settled_resources(up: Up, before: dict[str, Resources]) -> dict[str, Resources]:
    """Return the resources of each process in `before`, once within bounds or after SETTLE_LIMIT_S."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        pids = {name: pid for name, pid in children(up.run_dir).items() if name in before}
        now = {name: Resources.of(name, pid) for name, pid in pids.items()}
        if all(now[name].is_within_bounds(before[name]) for name in before) or time.monotonic() > deadline:
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
    leaking = {name for name, resources in after.items() if not resources.is_within_bounds(before[name])}
    assert not leaking
    assert all(call.valid for call in load.calls)

"""Twenty rounds of trouble leave nothing behind: no task, no socket, no thread, no memory."""

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
SETTLED_S = 10.0
"""After the last round, for what is under way to end."""
TASKS, FILES, THREADS, MEMORY_MB = 3, 3, 2, 8
"""So much more of each than after the first ten rounds is what happens to be under way; a leak is one a round
or one a call, and ten rounds and hundreds of calls follow."""


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    tasks: int
    files: int
    threads: int
    memory_mb: float

    @classmethod
    def by(cls, name: str, pid: int) -> "Held":
        status = Path(f"/proc/{pid}/status").read_text()
        (threads,) = re.findall(r"^Threads:\s+(\d+)", status, re.MULTILINE)
        (memory_kb,) = re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        files = len(os.listdir(f"/proc/{pid}/fd"))
        tasks = _tasks(name) if name in PORTS else 0
        return cls(tasks, files, int(threads), int(memory_kb) / 1024)

    def is_within(self, before: "Held") -> bool:
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


def settled(up: Up, before: dict[str, Held]) -> dict[str, Held]:
    """What each process of `before` holds now, as soon as that is within bounds, or at last."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        held = {name: Held.by(name, pid) for name, pid in children(up.run_dir).items() if name in before}
        if all(held[name].is_within(before[name]) for name in before) or time.monotonic() > deadline:
            return held
        time.sleep(0.2)


@pytest.fixture
def load(up: Up) -> Iterator[Load]:
    with Load.on(f"127.0.0.1:{PORTS['gateway']}", USERS) as load:
        yield load


def test_twenty_rounds_leave_nothing_behind(up: Up, load: Load) -> None:
    def kill(part: str) -> None:
        os.kill(children(up.run_dir)[part], signal.SIGKILL)
        time.sleep(HOLD_S)
        load.full_service(time.monotonic(), limit_s=30)

    def pause(part: str) -> None:
        os.kill(children(up.run_dir)[part], signal.SIGSTOP)
        time.sleep(HOLD_S)
        os.kill(children(up.run_dir)[part], signal.SIGCONT)
        load.full_service(time.monotonic(), limit_s=10)

    def rounds(fault: Callable[[str], None]) -> None:
        for part in PARTS:
            fault(part)

    rounds(kill)
    rounds(pause)  # and pools of connections are as large as they will be
    before = {name: Held.by(name, pid) for name, pid in children(up.run_dir).items()}
    rounds(pause)
    after = settled(up, before)
    rounds(kill)
    after |= settled(up, {"gateway": before["gateway"]})  # the others are new
    grown = {name: (before[name], held) for name, held in after.items() if not held.is_within(before[name])}
    for name, held in after.items():
        print(f"{name}: {before[name]} -> {held}")
    assert not grown
    assert all(call.valid for call in load.calls)

"""The resources that a process of the platform holds, and whether they have grown."""

import os
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ecrs.ports import METRICS_OFFSET, PORTS


@dataclass(frozen=True)
class Resources:
    """The resources that a process holds."""

    tasks: int
    files: int
    threads: int
    memory_mb: float

    @classmethod
    def of(cls, name: str, pid: int) -> "Resources":
        """Count the resources of process `pid`, which is the service or store `name`."""
        return cls(
            tasks(name) if name in PORTS else 0,
            len(os.listdir(f"/proc/{pid}/fd")),
            status_number(pid, "Threads"),
            status_number(pid, "VmRSS") / 1024,
        )

    def is_within(self, before: "Resources", growth: "Resources") -> bool:
        """True if these have not grown by more than `growth` since `before`."""
        return (
            self.tasks <= before.tasks + growth.tasks
            and self.files <= before.files + growth.files
            and self.threads <= before.threads + growth.threads
            and self.memory_mb <= before.memory_mb + growth.memory_mb
        )


UNFINISHED = Resources(tasks=3, files=3, threads=2, memory_mb=8.0)
"""Growth that is no leak: work that happens to be unfinished.

A leak would be larger: it adds one per fault or one per call.
"""


def status_number(pid: int, field: str) -> int:
    """Return a number of /proc/PID/status, see proc(5): "VmRSS" and "VmHWM" in KiB, or "Threads"."""
    status = Path(f"/proc/{pid}/status").read_text()
    (number,) = re.findall(rf"^{field}:\s+(\d+)", status, re.MULTILINE)
    return int(number)


def tasks(service: str) -> int:
    """Return the number of live asyncio tasks of a service on this machine."""
    return int(metric(service, "ecrs_tasks"))


def metric(service: str, name: str) -> float:
    """Return the sum of a metric over all its labels, as a service on this machine reports it."""
    address = f"http://127.0.0.1:{PORTS[service] + METRICS_OFFSET}/metrics"
    with urllib.request.urlopen(address, timeout=5) as reply:
        samples = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", reply.read().decode(), re.MULTILINE)
    return sum(map(float, samples))

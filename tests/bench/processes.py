"""Processes of the benchmark's own, and what any process uses."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Serving:
    """A process that serves."""

    target: str
    pid: int


@contextmanager
def serving(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Serving]]:
    """`python -m ARGUMENTS…` by name, started together; each prints the port that it serves on."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        for name, arguments in commands.items()
    }
    try:
        yield {name: Serving(_target(name, process), process.pid) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


def _target(name: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    port = process.stdout.readline()
    if not port:
        raise RuntimeError(f"{name} ended before it served: why, it says above")
    return f"127.0.0.1:{int(port)}"


def cpu_s(parts: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds that each part, a process and all below it, has used."""
    below = _below(parts.values())
    return {
        name: sum(float(stat[11]) + float(stat[12]) for stat in map(_stat, below[root]) if stat) / TICKS_PER_S
        for name, root in parts.items()
    }


def rss_mb(parts: Mapping[str, int]) -> dict[str, int]:
    """Resident memory of each part; pages that processes share are counted in each."""
    below = _below(parts.values())
    return {
        name: sum(int(stat[21]) for stat in map(_stat, below[root]) if stat) * PAGE_BYTES // 2**20
        for name, root in parts.items()
    }


def _below(roots: Iterable[int]) -> dict[int, list[int]]:
    """Each root's process ids: its own and those of its children, theirs and so on."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and (stat := _stat(int(directory.name))):
            children.setdefault(int(stat[1]), []).append(int(directory.name))
    found = {}
    for root in roots:
        found[root] = tree = [root]
        for pid in tree:
            tree.extend(children.get(pid, ()))
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of proc(5)'s stat from the state on; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None

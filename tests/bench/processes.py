"""Starts server processes for the benchmark, and measures the CPU time and memory of processes."""

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
    """A running server process."""

    target: str
    pid: int


@contextmanager
def serving(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Serving]]:
    """Start the commands, each `python -m ARGUMENTS…`, together and yield the servers by name.

    Each command must print the port that it serves on.
    """
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
        raise RuntimeError(f"{name} ended before it served; its error output above has the reason")
    return f"127.0.0.1:{int(port)}"


def cpu_s(parts: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU seconds used by each part: a process and its descendants."""
    tree = _process_trees(parts.values())
    return {
        name: sum(float(stat[11]) + float(stat[12]) for stat in map(_stat, tree[root]) if stat) / TICKS_PER_S
        for name, root in parts.items()
    }


def rss_mb(parts: Mapping[str, int]) -> dict[str, int]:
    """Return the resident memory of each part; pages shared by processes count for each of them."""
    tree = _process_trees(parts.values())
    return {
        name: sum(int(stat[21]) for stat in map(_stat, tree[root]) if stat) * PAGE_BYTES // 2**20
        for name, root in parts.items()
    }


def _process_trees(roots: Iterable[int]) -> dict[int, list[int]]:
    """Return for each root its own process id and those of all its descendants."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and (stat := _stat(int(directory.name))):
            children.setdefault(int(stat[1]), []).append(int(directory.name))
    trees = {}
    for root in roots:
        trees[root] = tree = [root]
        for pid in tree:
            tree.extend(children.get(pid, ()))
    return trees


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on, see proc(5); None if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None

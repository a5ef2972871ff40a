"""Samples what the platform's processes hold over a long run, and judges whether they leak."""

import math
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from tests.attack.shop import Shop
from tests.attack.slope import Slope, slope
from tests.resources import UNFINISHED, status_number

INTERVAL_S = 2.0
WARM_UP_S = 30.0
"""Time after the start of a process in which its caches and pools fill."""
WARM_UP_SHARE = 1 / 3
"""Share of the run in which most attacks happen for the first time, and memory reaches its highest level."""
JUDGED_AFTER_S = 600.0
"""A slope over less time tells nothing: memory changes in steps of megabytes."""
LEAK_BYTES_PER_CALL = 1024
"""The least that a leak per call would keep: a small message with its Python objects."""
MB = 2**20
HOUR_S = 3600.0


@dataclass(frozen=True)
class Sample:
    """What a process held at a time by time.monotonic()."""

    at: float
    name: str
    pid: int
    memory_mb: float
    threads: int
    files: int


@dataclass(frozen=True)
class Held:
    """What the processes of one name held over a run: the slope of their memory, and the least of the rest.

    The least, because attacks hold connections for a while. `problems` tell what has grown.
    """

    slope: Slope | None
    threads: tuple[int, int]
    files: tuple[int, int]
    problems: list[str]


class ProcessSamples:
    """Samples of all processes of a shop, taken on a thread."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._started = time.monotonic()

    @classmethod
    @contextmanager
    def of(cls, shop: Shop) -> Iterator["ProcessSamples"]:
        """Take samples while the context is open."""
        samples, ended = cls(), threading.Event()

        def run() -> None:
            while not ended.wait(INTERVAL_S):
                for name, pid in shop.pids.items():
                    with suppress(OSError, ValueError):  # it has just ended
                        samples._samples.append(_sample(name, pid))

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run)
            try:
                yield samples
            finally:
                ended.set()
            running.result()

    def judge(self, calls_per_s: float) -> dict[str, Held]:
        """Return what the processes held, by name.

        A leak is a slope above LEAK_BYTES_PER_CALL at this rate of calls, of which the whole interval is
        above 0, or more threads or files at the end than after the warm-up.
        """
        duration_s = time.monotonic() - self._started
        begun_at = self._started + WARM_UP_SHARE * duration_s
        first_seen: dict[int, float] = {}
        warm: dict[str, list[Sample]] = {}
        for sample in self._samples:
            if sample.at > max(begun_at, first_seen.setdefault(sample.pid, sample.at) + WARM_UP_S):
                warm.setdefault(sample.name, []).append(sample)
        return {name: _held(samples, duration_s, calls_per_s) for name, samples in sorted(warm.items())}


def _sample(name: str, pid: int) -> Sample:
    files = len(os.listdir(f"/proc/{pid}/fd"))
    memory_mb, threads = status_number(pid, "VmRSS") / 1024, status_number(pid, "Threads")
    return Sample(time.monotonic(), name, pid, memory_mb, threads, files)


def _held(samples: list[Sample], duration_s: float, calls_per_s: float) -> Held:
    quarter = math.ceil(len(samples) / 4)
    ends = samples[:quarter], samples[-quarter:]
    threads, files = (
        (min(getattr(sample, name) for sample in ends[0]), min(getattr(sample, name) for sample in ends[1]))
        for name in ("threads", "files")
    )
    found = slope(_lives(samples))
    problems = []
    bound = LEAK_BYTES_PER_CALL / MB * calls_per_s * HOUR_S
    if duration_s >= JUDGED_AFTER_S and found and found.low > 0 and found.mb_per_h > bound:
        problems.append(f"memory grows by {found.mb_per_h:.0f} ± {found.half_width:.0f} MB/h")
    for name, (before, after), allowed in (
        ("threads", threads, UNFINISHED.threads),
        ("files", files, UNFINISHED.files),
    ):
        if after > before + allowed:
            problems.append(f"{name} grew from {before} to {after}")
    return Held(found, threads, files, problems)


def _lives(samples: list[Sample]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the times and the memory of each process."""
    for pid in {sample.pid for sample in samples}:
        life = [sample for sample in samples if sample.pid == pid]
        yield np.array([sample.at for sample in life]), np.array([sample.memory_mb for sample in life])

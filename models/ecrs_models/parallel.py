"""Worker processes for the offline pipeline: one object in each, called by the number of its process."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Protocol

from threadpoolctl import threadpool_limits

MIN_ROWS, MAX_ROWS = 100_000, 20_000_000
"""Log rows for which worker processes pay: below, starting one takes longer than the work; above, each one's
copy of the log takes more memory than a training may use."""


class Workers(Protocol):
    """`count` copies of one object, each in a process of its own or all the same one in this process."""

    count: int

    def call(self, worker: int, method: str, *arguments: Any) -> "Future[Any]":
        """Call `method` of copy number `worker`, modulo `count`; calls of one copy run in order."""


@contextmanager
def workers(rows: int, factory: Callable[..., Any], *arguments: Any) -> Iterator[Workers]:
    """Copies of `factory(*arguments)` for a log of `rows` rows: one per core, or one in this process.

    Factory and arguments must be picklable. The processes end with this one, however it ends.
    """
    cores = len(os.sched_getaffinity(0))
    if cores == 1 or not MIN_ROWS <= rows <= MAX_ROWS:
        yield _InProcess(factory(*arguments))
        return
    group = _Processes(cores, factory, arguments)
    try:
        yield group
    finally:
        group.stop()


class _InProcess:
    """The object itself: a call is done when `call` returns."""

    count = 1

    def __init__(self, target: Any) -> None:
        self._target = target

    def call(self, worker: int, method: str, *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(getattr(self._target, method)(*arguments))
        return future


class _Processes:
    """An executor of one process for each copy, so that a copy keeps what it computed between calls.

    Spawned, not forked: Paddle and BLAS have threads, which a fork does not copy.
    """

    def __init__(self, count: int, factory: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.count = count
        context = get_context("spawn")
        self._executors = [
            ProcessPoolExecutor(1, context, initializer=_build, initargs=(os.getpid(), factory, arguments))
            for _ in range(count)
        ]

    def call(self, worker: int, method: str, *arguments: Any) -> "Future[Any]":
        return self._executors[worker % self.count].submit(_call, method, arguments)

    def stop(self) -> None:
        for executor in self._executors:
            executor.shutdown(cancel_futures=True)


_target: Any = None
"""In a worker process: its copy."""


def _build(parent: int, factory: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _target
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    threadpool_limits(1)  # every core has a worker already
    _target = factory(*arguments)


def _call(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_target, method)(*arguments)

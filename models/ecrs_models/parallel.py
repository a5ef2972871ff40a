"""Worker processes for the offline pipeline. Each holds one copy of an object, whose methods are called."""

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
"""Sizes of the log, in rows, for which worker processes are used.

With fewer rows, starting a process takes longer than the work. With more, the copies of the log, one per
process, need more memory than a training may use.
"""


class Workers(Protocol):
    """`count` copies of one object, each in its own process, or a single one in this process."""

    count: int

    def call(self, worker: int, method: str, *arguments: Any) -> "Future[Any]":
        """Call `method` of copy number `worker` modulo `count`. Calls to the same copy run in order."""


@contextmanager
def workers(rows: int, factory: Callable[..., Any], *arguments: Any) -> Iterator[Workers]:
    """Create copies of `factory(*arguments)`: one process per core, or a single copy in this process.

    `rows`, the number of rows of the log, decides which, by MIN_ROWS and MAX_ROWS. Factory and arguments
    must be picklable. The worker processes terminate when this process does, even if it is killed.
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
    """Holds the object in this process. A call has finished when `call` returns.

    BLAS runs on one thread, as in worker processes: its sums depend on the number of threads, which the
    environment and the order of imports decide.
    """

    count = 1

    def __init__(self, target: Any) -> None:
        self._target = target

    def call(self, worker: int, method: str, *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        with threadpool_limits(1, "blas"):
            future.set_result(getattr(self._target, method)(*arguments))
        return future


class _Processes:
    """One executor with a single process per copy, so that a copy keeps its state between calls.

    The processes are spawned, not forked, because Paddle and BLAS run threads, which a fork does not copy.
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
"""In a worker process, the copy that it holds."""


def _build(parent: int, factory: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _target
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # the parent died before prctl took effect
        os._exit(1)
    threadpool_limits(1)  # every core already has a worker
    _target = factory(*arguments)


def _call(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_target, method)(*arguments)

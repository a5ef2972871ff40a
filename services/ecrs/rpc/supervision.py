"""Supervision of background tasks: a task that ends unexpectedly is logged, counted and restarted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from ecrs.rpc.metrics import TASK_FAILURES

log = structlog.get_logger()

RESTART_DELAY_S = 1.0
"""Pause before a failed task is restarted, so that a permanent fault does not flood the log."""

STOP_LIMIT_S = 1.0
"""Longest wait for a task that was cancelled."""

Run = Callable[[], Awaitable[None]]


async def _nothing() -> None: ...


async def supervised(service: str, task: str, run: Run, on_failure: Run = _nothing) -> None:
    """Call `run()`, and again RESTART_DELAY_S after it ends, until the calling task is cancelled.

    Any end is unexpected: a return, an exception, or a CancelledError that a library raised although nobody
    cancelled the task. Each is logged, counted in ecrs_task_failures_total, and followed by `on_failure()`.
    """
    failures = TASK_FAILURES.labels(service, task)
    while True:
        await _attempt(task, run)
        failures.inc()
        await _attempt(task, on_failure)
        log.error("background task ended", task=task, restart_s=RESTART_DELAY_S)
        await asyncio.sleep(RESTART_DELAY_S)


@asynccontextmanager
async def in_background(service: str, task: str, run: Run) -> AsyncIterator[None]:
    """Run a task, `supervised`, while the context is open."""
    running = asyncio.create_task(supervised(service, task, run))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=STOP_LIMIT_S)


async def _attempt(task: str, run: Run) -> None:
    """Await `run()` and log any exception. Raises CancelledError only if the calling task is cancelled."""
    calling_task = asyncio.current_task()
    assert calling_task is not None
    try:
        await run()
    except (Exception, asyncio.CancelledError):
        if not calling_task.cancelling():
            log.exception("background task failed", task=task)
    if calling_task.cancelling():  # even if a library inside `run` swallowed the cancellation
        raise asyncio.CancelledError

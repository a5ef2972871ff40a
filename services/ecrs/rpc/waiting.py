"""Wait for a dependency at the start of a program, logging what it waits for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, stop_never
from tenacity.wait import wait_exponential_jitter

from ecrs.rpc.errors import DeadlineExceeded, Fault, Unavailable

log = structlog.get_logger()

T = TypeVar("T")


async def wait_until(name: str, attempt: Callable[[], Awaitable[T]], *, limit_s: float | None = None) -> T:
    """Call `attempt` until it raises neither Unavailable nor DeadlineExceeded, and return its result.

    Logs `name` and the reason after every failed attempt. After `limit_s` seconds, if given, raises the last
    fault.
    """

    def log_failure(state: RetryCallState) -> None:
        fault = state.outcome.exception() if state.outcome else None
        log.info("waiting", waits_for=name, reason=fault.text if isinstance(fault, Fault) else str(fault))

    retrying = AsyncRetrying(
        retry=retry_if_exception_type((Unavailable, DeadlineExceeded)),
        wait=wait_exponential_jitter(multiplier=0.1, max=2.0),
        stop=stop_never if limit_s is None else stop_after_delay(limit_s),
        before_sleep=log_failure,
        reraise=True,
    )
    return await retrying(attempt)


async def is_set_within(timeout_s: float, event: asyncio.Event) -> bool:
    """Wait until `event` is set, for at most `timeout_s`, and return whether it is."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False

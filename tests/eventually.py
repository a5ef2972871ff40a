"""Waiting for a condition with a time limit, in place of sleeping for a time that should suffice."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[bool]], limit_s: float = 10.0) -> None:
    """Return once `condition` holds; raise TimeoutError after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while not await condition():  # noqa: ASYNC110 - the condition depends on another process
            await asyncio.sleep(0.02)


def within(limit_s: float, condition: Callable[[], bool]) -> float:
    """Wait until `condition` holds and return how many seconds that took; fail after `limit_s`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s
        time.sleep(0.01)
    return time.monotonic() - started

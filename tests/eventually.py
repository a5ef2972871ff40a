"""Wait for a condition, with a limit: no test sleeps for a time that should be enough."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[bool]], limit_s: float = 10.0) -> None:
    """Return once `condition` holds; TimeoutError after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while not await condition():  # noqa: ASYNC110 - what is awaited is another process
            await asyncio.sleep(0.02)

"""Waiting for a condition with a time limit, in place of sleeping for a time that should suffice."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[bool]], limit_s: float = 10.0) -> None:
    """Return once `condition` holds; raise TimeoutError after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while not await condition():  # noqa: ASYNC110 - the condition depends on another process
            await asyncio.sleep(0.02)

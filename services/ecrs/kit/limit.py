"""A limit on the answers of stores, whose clients are not gRPC's."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from ecrs.kit.errors import OutOfTime, Unavailable

T = TypeVar("T")


async def within(
    timeout_s: float, who: str, answer: Awaitable[T], *, away: tuple[type[BaseException], ...] = ()
) -> T:
    """`answer`, given by `who`; OutOfTime past `timeout_s`, Unavailable for the errors in `away`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await answer
    except TimeoutError:
        raise OutOfTime(f"{who} did not answer within {timeout_s * 1000:.0f} ms") from None
    except away as error:
        raise Unavailable(f"{who} is unavailable ({type(error).__name__})") from error

"""A limit on the answers of stores and models, whose clients are not gRPC's."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from ecrs.kit.errors import OutOfTime, Unavailable
from ecrs.kit.observe import DEPENDENCY_SECONDS, timed

T = TypeVar("T")


async def within(
    timeout_s: float,
    who: str,
    answer: Awaitable[T],
    *,
    dependency: str,
    away: tuple[type[BaseException], ...] = (),
) -> T:
    """`answer`, given by `who`; OutOfTime past `timeout_s`, Unavailable for the errors in `away`.

    `who` is for people, `dependency` its name in the metrics.
    """
    with timed(DEPENDENCY_SECONDS, dependency):
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise OutOfTime(f"{who} did not answer within {timeout_s * 1000:.0f} ms") from None
        except away as error:
            raise Unavailable(f"{who} is unavailable ({type(error).__name__})") from error

"""Deadlines: how long a call may take, and how much of that time each stage gets.

gRPC does not pass a deadline on to the calls that a server makes. A service reads how much time its caller
has left, keeps a reserve for building the reply, and gives each stage
`min(limit, fraction * (remaining - reserve))`.
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from ecrs.rpc.errors import DeadlineExceeded, Unavailable
from ecrs.rpc.metrics import DEPENDENCY_SECONDS, timed

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """The time by which a call must be answered.

    `expires_at` is in seconds of time.monotonic(). `reserve_s` is kept back for building the reply.
    """

    expires_at: float
    reserve_s: float = 0.0

    @classmethod
    def after(cls, seconds: float | None, *, default_s: float, reserve_s: float = 0.0) -> "Deadline":
        """Return a deadline `seconds` from now, or `default_s` from now if the caller set none (None)."""
        seconds = default_s if seconds is None else seconds
        return cls(time.monotonic() + seconds, reserve_s)

    def remaining_s(self) -> float:
        """Return the seconds left, including the reserve; negative once the deadline has passed."""
        return self.expires_at - time.monotonic()

    def share(self, stage: str, limit_s: float, fraction: float = 1.0) -> float:
        """Return the seconds that `stage` may use.

        They are at most `limit_s`, and at most `fraction` of the time that is left after the reserve. A
        fraction below 1 leaves time for a fallback if the stage hangs. Raises DeadlineExceeded if no time is
        left.
        """
        seconds = min(limit_s, fraction * (self.remaining_s() - self.reserve_s))
        if seconds <= 0:
            raise DeadlineExceeded(f"no time left for stage {stage}")
        return seconds


async def bounded(
    timeout_s: float,
    name: str,
    call: Awaitable[T],
    *,
    dependency: str,
    unavailable_on: tuple[type[BaseException], ...] = (),
) -> T:
    """Await a call to a store or a model for at most `timeout_s`; return its result and record its duration.

    `name` appears in error texts, `dependency` labels the metric. Raises DeadlineExceeded past `timeout_s`,
    and Unavailable in place of the exceptions in `unavailable_on`.
    """
    with timed(DEPENDENCY_SECONDS, dependency):
        try:
            async with asyncio.timeout(timeout_s):
                return await call
        except TimeoutError:
            raise DeadlineExceeded(f"{name} did not answer within {timeout_s * 1000:.0f} ms") from None
        except unavailable_on as error:
            raise Unavailable(f"{name} is unavailable ({type(error).__name__})") from error

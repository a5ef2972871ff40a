"""The time an answer may take, and each stage's share of it.

gRPC deadlines do not propagate by themselves: a service takes what its caller left it, keeps a
reserve to answer with, and gives every stage `min(cap, remaining − reserve)`.
"""

import time
from dataclasses import dataclass

from ecrs.kit.errors import OutOfTime


@dataclass(frozen=True)
class Budget:
    deadline: float  # time.monotonic()
    reserve_s: float = 0.0

    @classmethod
    def of(cls, seconds: float | None, *, default_s: float, reserve_s: float = 0.0) -> "Budget":
        """A budget of `seconds` from now; `default_s` where the caller set no deadline."""
        seconds = default_s if seconds is None else seconds
        return cls(time.monotonic() + seconds, reserve_s)

    def remaining_s(self) -> float:
        return self.deadline - time.monotonic()

    def stage(self, name: str, cap_s: float, share: float = 1.0) -> float:
        """Seconds that stage `name` may take, at most `share` of what is left, so that one that hangs
        leaves time for a fallback; raises OutOfTime when there are none."""
        seconds = min(cap_s, share * (self.remaining_s() - self.reserve_s))
        if seconds <= 0:
            raise OutOfTime(f"no time left for stage {name}")
        return seconds

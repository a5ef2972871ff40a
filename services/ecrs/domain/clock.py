"""The current time, as a bundle's models and tables should see it."""

import time
from dataclasses import dataclass

DAY_S = 86_400

STALE_S = 28 * DAY_S
"""Longest time after the bundle's cutoff for which the ranker's label window is valid."""


@dataclass(frozen=True)
class BundleClock:
    """The clock for a bundle whose data ends at `as_of`, in Unix seconds.

    If the data is older than STALE_S, as in the demo, the clock stands still at `as_of`, because recency
    features measured in years would be meaningless.
    """

    as_of: int

    def now(self, requested: int = 0) -> int:
        """Return `requested`, the time that a request gives, if it is set, otherwise the current time."""
        if requested:
            return requested
        now = int(time.time())
        return now if now - self.as_of <= STALE_S else self.as_of

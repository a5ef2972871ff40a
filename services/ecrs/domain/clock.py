"""What time it is for a bundle."""

import time
from dataclasses import dataclass

DAY_S = 86_400

STALE_S = 28 * DAY_S
"""How far the clock may be past a bundle's data: as far as its ranker learned to look ahead."""


@dataclass(frozen=True)
class BundleClock:
    """The clock, for a bundle whose tables are as of `as_of`, Unix seconds.

    A bundle older than STALE_S is an archive, as the demo's is: recencies of years would say nothing, so
    it is served as of its own moment.
    """

    as_of: int

    def now(self, asked: int = 0) -> int:
        """`asked` if a request says when, else the time."""
        if asked:
            return asked
        wall = int(time.time())
        return wall if wall - self.as_of <= STALE_S else self.as_of

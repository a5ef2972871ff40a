"""TODO ecrs_models.data.split."""

from dataclasses import dataclass

from ecrs.domain.clock import DAY_S
from ecrs_models.errors import DataError

WINDOW_DAYS = 28
"""An evaluation period: four weeks, less where the data are short."""


@dataclass(frozen=True)
class Split:
    """Unix seconds: fit before `valid_from` to tune, before `test_from` to report; `until` ends the test."""

    valid_from: int
    test_from: int
    until: int

    @property
    def window_s(self) -> int:
        """How long a period is."""
        return self.test_from - self.valid_from

    @classmethod
    def suggest(cls, first: int, last: int, window_days: int | None = None) -> "Split":
        """Two periods of WINDOW_DAYS at the end of the data, or of a sixth of it where it is short.

        `window_days` gives their length instead. DataError if that leaves nothing to learn from.
        """
        window = window_days * DAY_S if window_days else min(WINDOW_DAYS * DAY_S, (last - first) // 6)
        if window_days and last + 1 - 2 * window <= first:
            raise DataError(f"two periods of {window_days} days leave nothing to learn from")
        if window >= DAY_S:
            window -= window % DAY_S
        until = last + 1
        return cls(until - 2 * window, until - window, until)

    def end_after(self, start: int) -> int:
        """Where the evaluation period that begins at `start` ends."""
        return next((end for end in (self.valid_from, self.test_from, self.until) if end > start), start)

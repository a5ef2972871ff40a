"""The time split of a data set into a fit, a tuning and a test period."""

from dataclasses import dataclass

from ecrs.domain.clock import DAY_S
from ecrs_models.errors import DataError

WINDOW_DAYS = 28
"""Length of an evaluation period: four weeks, or less if the log is short."""


@dataclass(frozen=True)
class Split:
    """A global time split, in Unix seconds.

    To tune, fit on the log before `valid_from` and evaluate up to `test_from`. To report, fit on the log
    before `test_from` and evaluate up to `until`.
    """

    valid_from: int
    test_from: int
    until: int

    @property
    def window_s(self) -> int:
        """Length of an evaluation period, which is also that of the ranker's label window."""
        return self.test_from - self.valid_from

    @classmethod
    def suggest(cls, first: int, last: int, window_days: int | None = None) -> "Split":
        """Place two evaluation periods at the end of a log from `first` to `last`, Unix seconds.

        Each is `window_days` long; by default WINDOW_DAYS, or a sixth of the log if that is shorter, rounded
        down to whole days. Raises DataError if two periods of `window_days` leave nothing to learn from.
        """
        window = window_days * DAY_S if window_days else min(WINDOW_DAYS * DAY_S, (last - first) // 6)
        if window_days and last + 1 - 2 * window <= first:
            raise DataError(f"two periods of {window_days} days leave nothing to learn from")
        if window >= DAY_S:
            window -= window % DAY_S
        until = last + 1
        return cls(until - 2 * window, until - window, until)

    def end_after(self, start: int) -> int:
        """Return the end of the evaluation period that begins at `start`: the next boundary of the split."""
        return next((end for end in (self.valid_from, self.test_from, self.until) if end > start), start)

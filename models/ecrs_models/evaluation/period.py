"""An evaluation period: what was before it and what came in it."""

from dataclasses import dataclass

import numpy as np

from ecrs_models.data.dataset import Dataset
from ecrs_models.data.log import Log

TASKS = ("all", "new")


@dataclass(frozen=True)
class EvaluationPeriod:
    """What was before the evaluation and what came in it."""

    seen: Log  # everything before
    fit: Log  # the purchases of it
    truth: dict[int, np.ndarray]  # per warm user, the distinct items taken in the period
    catalogue: np.ndarray  # bool, shape (items,): bought at least once before
    start: int

    @classmethod
    def of(cls, data: Dataset, start: int, end: int) -> "EvaluationPeriod":
        seen = data.log.before(start)
        fit, later = seen.purchases(), data.log.purchases().between(start, end)
        warm = np.flatnonzero((np.diff(fit.start) > 0) & (np.diff(later.start) > 0))
        truth = {int(user): np.unique(later.item[later.start[user] : later.start[user + 1]]) for user in warm}
        catalogue = np.zeros(data.items.height, dtype=bool)
        catalogue[fit.item] = True
        return cls(seen, fit, truth, catalogue, start)

    def truth_of(self, task: str) -> dict[int, np.ndarray]:
        """Per user, what to find; users for whom there is nothing are left out."""
        if task == "all":
            return self.truth
        new = {user: np.setdiff1d(items, self.bought(user)) for user, items in self.truth.items()}
        return {user: items for user, items in new.items() if len(items)}

    def bought(self, user: int) -> np.ndarray:
        """The items of the user's purchases before the period, oldest first, with repeats."""
        return self.fit.item[self.fit.start[user] : self.fit.start[user + 1]]

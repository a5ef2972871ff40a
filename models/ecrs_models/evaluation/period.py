"""An evaluation period: what happened before it, and what users bought in it."""

from dataclasses import dataclass

import numpy as np

from ecrs.domain.actions import ActionType
from ecrs_models.data.dataset import Dataset
from ecrs_models.data.log import Log

TASKS = ("all", "new")


@dataclass(frozen=True)
class EvaluationPeriod:
    """The log before `start`, and the ground truth of the period that begins there.

    `seen`, the log before; `fit`, its positive actions; `truth`, for each user with actions in `fit`, the
    distinct items of positive actions in the period; `catalogue`, bool (items,), the items in `fit`.
    """

    seen: Log
    fit: Log
    truth: dict[int, np.ndarray]
    catalogue: np.ndarray
    start: int

    @classmethod
    def of(cls, data: Dataset, start: int, end: int) -> "EvaluationPeriod":
        """The period from `start` to `end`, Unix seconds, `end` excluded."""
        seen = data.log.before(start)
        fit, later = seen.positives(), data.log.positives().between(start, end)
        warm = np.flatnonzero((np.diff(fit.start) > 0) & (np.diff(later.start) > 0))
        truth = {int(user): np.unique(later.item[later.start[user] : later.start[user + 1]]) for user in warm}
        catalogue = np.zeros(data.items.height, dtype=bool)
        catalogue[fit.item] = True
        return cls(seen, fit, truth, catalogue, start)

    def truth_of(self, task: str) -> dict[int, np.ndarray]:
        """The ground truth of a task; users without any are left out.

        In task `new`, items that the user ordered before do not count, as with `new_only` in serving.
        """
        if task == "all":
            return self.truth
        new = {user: np.setdiff1d(items, self.bought(user)) for user, items in self.truth.items()}
        return {user: items for user, items in new.items() if len(items)}

    def history(self, user: int) -> np.ndarray:
        """The items of the user's positive actions before the period, oldest first, with repeats."""
        return self.fit.item[self.fit.start[user] : self.fit.start[user + 1]]

    def bought(self, user: int) -> np.ndarray:
        """The items of the user's orders before the period, as `history`; none if the log has no orders."""
        rows = slice(self.fit.start[user], self.fit.start[user + 1])
        return self.fit.item[rows][self.fit.type[rows] == ActionType.ORDER]

"""An evaluation period: the log before it, and the ground truth in it."""

from dataclasses import dataclass

import numpy as np

from ecrs.domain.actions import ActionType
from ecrs_models.data.dataset import Dataset
from ecrs_models.data.log import Log

TASKS = ("all", "new")


@dataclass(frozen=True)
class EvaluationPeriod:
    """The log before `start`, Unix seconds, and the ground truth of the period that begins there.

    `seen`: the log before the period; `fit`: its positive actions; `truth`: for each warm user, that is, a
    user with actions in `fit`, the distinct items of positive actions in the period; `catalogue`, bool
    (items,): the items that occur in `fit`. Users without positive actions in the period are not in `truth`.
    """

    seen: Log
    fit: Log
    truth: dict[int, np.ndarray]
    catalogue: np.ndarray
    start: int

    @classmethod
    def of(cls, data: Dataset, start: int, end: int) -> "EvaluationPeriod":
        """Return the period from `start` up to, but not including, `end`, Unix seconds."""
        seen = data.log.before(start)
        fit, later = seen.positives(), data.log.positives().between(start, end)
        warm = np.flatnonzero((np.diff(fit.start) > 0) & (np.diff(later.start) > 0))
        truth = {int(user): np.unique(later.item[later.start[user] : later.start[user + 1]]) for user in warm}
        catalogue = np.zeros(data.items.height, dtype=bool)
        catalogue[fit.item] = True
        return cls(seen, fit, truth, catalogue, start)

    def truth_of(self, task: str) -> dict[int, np.ndarray]:
        """Return the ground truth of a task. Users without any are left out.

        In task `new`, items that the user ordered before the period do not count, as with `new_only` in
        serving.
        """
        if task == "all":
            return self.truth
        new = {user: np.setdiff1d(items, self.bought(user)) for user, items in self.truth.items()}
        return {user: items for user, items in new.items() if len(items)}

    def history(self, user: int) -> np.ndarray:
        """Return the items of the user's positive actions before the period, oldest first, with repeats."""
        return self.fit.item[self.fit.start[user] : self.fit.start[user + 1]]

    def bought(self, user: int) -> np.ndarray:
        """Return the items of the user's orders before the period, oldest first, with repeats.

        Empty if the log has no orders.
        """
        rows = slice(self.fit.start[user], self.fit.start[user + 1])
        return self.fit.item[rows][self.fit.type[rows] == ActionType.ORDER]

"""Recommendations and ground truth for a set of users, and the metrics computed from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecrs_models.evaluation import bootstrap, metrics
from ecrs_models.evaluation.bootstrap import Interval

OURS = "ECRS"
POPULARITY, HISTORY = "popularity", "history, then popularity"
RETRIEVAL = "blended candidates"
BEST_POSSIBLE = "best possible"
NOT_BASELINES = (OURS, RETRIEVAL, BEST_POSSIBLE)


@dataclass(frozen=True)
class RankingResults:
    """Recommendation lists beside the ground truth.

    `truth`: user → the distinct items to find, at least one; `lists`: recommender → user → items, best first.
    `lists` may hold users who are not in `truth`; they are ignored.
    """

    truth: dict[int, np.ndarray]
    lists: dict[str, dict[int, np.ndarray]]

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Recommender → float64 (users, METRICS), users in the order of `truth`."""
        return {
            name: np.array(
                [[*metrics.measure(lists[user], items).values()] for user, items in self.truth.items()]
            ).reshape(-1, len(metrics.METRICS))
            for name, lists in self.lists.items()
        }

    def means(self) -> dict[str, dict[str, float]]:
        """Return recommender → metric → mean over users."""
        return {
            name: dict(zip(metrics.METRICS, values.mean(axis=0).tolist(), strict=True))
            for name, values in self.values.items()
        }

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Return recommender → metric → mean over users with its confidence interval."""
        return {
            name: dict(zip(metrics.METRICS, bootstrap.intervals(values), strict=True))
            for name, values in self.values.items()
        }

    def against(self) -> dict[str, dict[str, Interval]]:
        """Return baseline → metric → mean of ECRS minus the baseline, with a paired bootstrap interval."""
        ours = self.values[OURS]
        return {
            name: dict(zip(metrics.METRICS, bootstrap.intervals(ours - values), strict=True))
            for name, values in self.values.items()
            if name not in NOT_BASELINES
        }

    def reached(self) -> dict[str, Interval]:
        """Return metric → mean of ECRS over mean of the best possible ranking.

        Empty unless BEST_POSSIBLE is among the recommenders.
        """
        if BEST_POSSIBLE not in self.values:
            return {}
        both = np.concatenate([self.values[OURS], self.values[BEST_POSSIBLE]], axis=1)
        width = len(metrics.METRICS)
        means, resampled = both.mean(axis=0), bootstrap.resampled_means(both)
        return {
            name: bootstrap.interval(
                means[column] / max(means[width + column], 1e-12),
                resampled[:, column] / np.maximum(resampled[:, width + column], 1e-12),
            )
            for column, name in enumerate(metrics.METRICS)
        }

    def of(self, users: Iterable[int]) -> "RankingResults":
        """Return the results of the given users only."""
        return RankingResults({user: self.truth[user] for user in users}, self.lists)

    def wanting(self, items: np.ndarray) -> "RankingResults":
        """Return the results with the ground truth restricted to `items`, bool (items,).

        Users who bought none of these items are left out.
        """
        restricted = {user: truth[items[truth]] for user, truth in self.truth.items()}
        return RankingResults({user: truth for user, truth in restricted.items() if len(truth)}, self.lists)

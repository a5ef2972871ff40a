"""What was recommended to some users beside what they took, and every number that follows from that."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecrs_models.evaluation import bootstrap, metrics
from ecrs_models.evaluation.bootstrap import Interval

OURS = "ECRS"
POPULARITY, HISTORY = "popularity", "history, then popularity"
RETRIEVAL = "merged recall"
BEST_POSSIBLE = "best possible"
NOT_BASELINES = (OURS, RETRIEVAL, BEST_POSSIBLE)


@dataclass(frozen=True)
class RankingResults:
    """`truth`: user → the distinct items to find, at least one; `lists`: recommender → user → items, best
    first. `lists` may have users who are not in `truth`."""

    truth: dict[int, np.ndarray]
    lists: dict[str, dict[int, np.ndarray]]

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Recommender → float64 (users, METRICS), users in the order of `truth`."""
        return {
            name: np.array(
                [[*metrics.measure(of[user], taken).values()] for user, taken in self.truth.items()]
            ).reshape(-1, len(metrics.METRICS))
            for name, of in self.lists.items()
        }

    def means(self) -> dict[str, dict[str, float]]:
        """Recommender → metric → mean over users."""
        return {
            name: dict(zip(metrics.METRICS, values.mean(axis=0).tolist(), strict=True))
            for name, values in self.values.items()
        }

    def intervals(self) -> dict[str, dict[str, Interval]]:
        return {
            name: dict(zip(metrics.METRICS, bootstrap.intervals(values), strict=True))
            for name, values in self.values.items()
        }

    def against(self) -> dict[str, dict[str, Interval]]:
        """Baseline → metric → by how much ECRS is better, of the same users."""
        ours = self.values[OURS]
        return {
            name: dict(zip(metrics.METRICS, bootstrap.intervals(ours - values), strict=True))
            for name, values in self.values.items()
            if name not in NOT_BASELINES
        }

    def reached(self) -> dict[str, Interval]:
        """Metric → ECRS as a share of the best possible, where that is known."""
        if BEST_POSSIBLE not in self.values:
            return {}
        both = np.concatenate([self.values[OURS], self.values[BEST_POSSIBLE]], axis=1)
        width = len(metrics.METRICS)
        means, drawn = both.mean(axis=0), bootstrap.resampled_means(both)
        return {
            name: bootstrap.interval(
                means[column] / max(means[width + column], 1e-12),
                drawn[:, column] / np.maximum(drawn[:, width + column], 1e-12),
            )
            for column, name in enumerate(metrics.METRICS)
        }

    def of(self, users: Iterable[int]) -> "RankingResults":
        """Some of the users alone."""
        return RankingResults({user: self.truth[user] for user in users}, self.lists)

    def wanting(self, items: np.ndarray) -> "RankingResults":
        """Only some items count, bool (items,); users who took none of them are left out."""
        wanted = {user: taken[items[taken]] for user, taken in self.truth.items()}
        return RankingResults({user: taken for user, taken in wanted.items() if len(taken)}, self.lists)

"""Evaluation by slices: users by length of history, new users, new products; and the gates for new users."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ecrs.domain.clock import DAY_S
from ecrs_models.evaluation.baselines import LIST_LENGTH, Recommender
from ecrs_models.evaluation.bootstrap import Interval
from ecrs_models.evaluation.evaluate import Evaluator
from ecrs_models.evaluation.period import EvaluationPeriod
from ecrs_models.evaluation.results import RankingResults
from ecrs_models.progress import Progress

HISTORY_EDGES = (50, 200, 500)
"""Numbers of distinct products bought before the period at which a slice of users begins."""

NEW_PRODUCT_DAYS = 28
GATE_METRIC = "recall@20"

COLD = {
    "profile alone": {"session": False, "profile": True},
    "session alone": {"session": True, "profile": False},
    "profile and session": {"session": True, "profile": True},
}
"""What is known about a new user: slice → keyword arguments of `Evaluator.lists_as_new`."""


@dataclass(frozen=True)
class Gate:
    """A quality requirement of a bundle.

    `difference` is the mean of ECRS minus that of the rival, in GATE_METRIC.
    """

    name: str
    rival: str
    difference: Interval

    @property
    def passed(self) -> bool:
        """True unless the confidence interval of the difference is entirely below 0."""
        return self.difference.high >= 0

    def __str__(self) -> str:
        difference = self.difference
        return (
            f"gate {'passed' if self.passed else 'FAILED'}: new users, {self.name}: {GATE_METRIC} "
            f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) against {self.rival}"
        )


def by_history(measured: RankingResults, period: EvaluationPeriod) -> dict[str, RankingResults]:
    """Slice users by the number of distinct products in their history. Empty slices are left out."""
    slices: dict[str, list[int]] = {name: [] for name in history_names()}
    names = list(slices)
    for user in measured.truth:
        products = len(np.unique(period.history(user)))
        slices[names[int(np.searchsorted(HISTORY_EDGES, products, side="right"))]].append(user)
    return {name: measured.of(users) for name, users in slices.items() if users}


def history_names() -> Iterator[str]:
    """Yield the names of the slices by history, shortest history first."""
    yield f"under {HISTORY_EDGES[0]}"
    for begin, end in pairwise(HISTORY_EDGES):
        yield f"{begin} to {end - 1}"
    yield f"{HISTORY_EDGES[-1]} and more"


def new_products(period: EvaluationPeriod) -> np.ndarray:
    """Mark the items first sold in the last NEW_PRODUCT_DAYS before the period: bool (items,)."""
    early = np.zeros_like(period.catalogue)
    early[period.fit.before(period.start - NEW_PRODUCT_DAYS * DAY_S).item] = True
    return period.catalogue & ~early


def cold(
    run: Evaluator, baselines: Mapping[str, Recommender], progress: Progress
) -> dict[str, RankingResults]:
    """Evaluate the period's users as if they were new, for each slice of COLD, on everything they bought.

    Their purchases remain in the data that models and baselines were fitted on.
    """
    truth = run.period.truth
    step = progress.step("new users", len(COLD) * len(truth))
    lists = {
        name: {user: recommend(user, False)[:LIST_LENGTH] for user in truth}
        for name, recommend in baselines.items()
    }
    return {
        name: RankingResults(truth, lists | run.lists_as_new(step, **arguments))
        for name, arguments in COLD.items()
    }


def gates(cold_users: dict[str, RankingResults], rival: str) -> list[Gate]:
    """Return one gate per slice of new users: ECRS must not be significantly worse than the rival."""
    return [
        Gate(name, rival, measured.against()[rival][GATE_METRIC]) for name, measured in cold_users.items()
    ]

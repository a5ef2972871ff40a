"""Whom recommendations are good for: users with much and little history, new users, new products."""

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
"""Distinct products bought before, at which a slice of users begins."""

NEW_PRODUCT_DAYS = 28
GATE_METRIC = "recall@20"

COLD = {
    "profile alone": {"session": False, "profile": True},
    "session alone": {"session": True, "profile": False},
    "profile and session": {"session": True, "profile": True},
}
"""What is known of a new user, as keyword arguments of `Evaluator.lists_as_new`."""


@dataclass(frozen=True)
class Gate:
    """A demand that a bundle must meet. `difference`: by how much ECRS is better than the rival."""

    name: str
    rival: str
    difference: Interval

    @property
    def passed(self) -> bool:
        """Not worse than the rival by more than noise."""
        return self.difference.high >= 0

    def __str__(self) -> str:
        found = self.difference
        return (
            f"gate {'passed' if self.passed else 'FAILED'}: new users, {self.name}: {GATE_METRIC} "
            f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}) against {self.rival}"
        )


def by_history(measured: RankingResults, period: EvaluationPeriod) -> dict[str, RankingResults]:
    """Slices of users by how many distinct products they bought before; empty ones are left out."""
    slices: dict[str, list[int]] = {name: [] for name in history_names()}
    names = list(slices)
    for user in measured.truth:
        products = len(np.unique(period.history(user)))
        slices[names[int(np.searchsorted(HISTORY_EDGES, products, side="right"))]].append(user)
    return {name: measured.of(users) for name, users in slices.items() if users}


def history_names() -> Iterator[str]:
    yield f"under {HISTORY_EDGES[0]}"
    for begin, end in pairwise(HISTORY_EDGES):
        yield f"{begin} to {end - 1}"
    yield f"{HISTORY_EDGES[-1]} and more"


def new_products(period: EvaluationPeriod) -> np.ndarray:
    """Items first sold in the last NEW_PRODUCT_DAYS before the period: bool (items,)."""
    early = np.zeros_like(period.catalogue)
    early[period.fit.before(period.start - NEW_PRODUCT_DAYS * DAY_S).item] = True
    return period.catalogue & ~early


def cold(
    evaluated: Evaluator, baselines: Mapping[str, Recommender], shown: Progress
) -> dict[str, RankingResults]:
    """The period's users as if they were new, by COLD, measured on everything they bought.

    Their purchases stay in the data that models and baselines were fitted on.
    """
    truth = evaluated.period.truth
    step = shown.step("new users", len(COLD) * len(truth))
    lists = {
        name: {user: recommend(user, False)[:LIST_LENGTH] for user in truth}
        for name, recommend in baselines.items()
    }
    return {
        name: RankingResults(truth, lists | evaluated.lists_as_new(step, **known))
        for name, known in COLD.items()
    }


def gates(cold_users: dict[str, RankingResults], rival: str) -> list[Gate]:
    """That new users are not worse served than by the rival."""
    return [
        Gate(name, rival, measured.against()[rival][GATE_METRIC]) for name, measured in cold_users.items()
    ]

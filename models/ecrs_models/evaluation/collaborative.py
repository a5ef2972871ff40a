"""Collaborative filtering by the library implicit: what a shop could have without any of this.

Part of the full report only; needs the extra `evaluate`. Both recommenders see the purchases before the
period and nothing else, a cell's value being at how many times the user bought the item. Settings and
weighting were chosen on The Complete Journey's tuning period (fit before 2017-11-06, measured on the four
weeks after) by the sum of both tasks' recall@20, out of a handful: item-kNN with TF-IDF, BM25 and plain
cosine, K from 10 to 100; iALS with 64 to 256 factors, regularisation 0.05 to 10, alpha 1 and 10; counts and
their logarithm.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import TFIDFRecommender
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from ecrs_models.evaluation.baselines import LIST_LENGTH, Popularity, without
from ecrs_models.evaluation.period import TASKS, EvaluationPeriod
from ecrs_models.snapshots.aggregates import pair_times

NEIGHBOURS = {"K": 10}
FACTORS = {"factors": 128, "regularization": 10.0, "alpha": 1.0, "iterations": 15}
IMPLICIT_SEED = 1


class Collaborative:
    """A fitted model of implicit; lists that it cannot fill are filled up by popularity.

    Sources: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008;
    Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001.
    """

    def __init__(self, period: EvaluationPeriod, make: Callable[[], Any]) -> None:
        """Fit what `make` makes on the period's purchases, and ask it for all who will be asked for."""
        self._popularity = Popularity(period)
        item = np.flatnonzero(period.catalogue)  # without columns of zeros, which factors would score
        taken = purchases(period)[:, item]
        users = np.array(sorted(period.truth))
        with threadpool_limits(1, "blas"), warnings.catch_warnings():  # implicit has threads of its own
            warnings.simplefilter("ignore")  # implicit warns of how long its own conversions take
            model = make()
            model.fit(taken, show_progress=False)
            self._lists = {task: self._ask(model, users, taken, item, task == "new") for task in TASKS}

    def __call__(self, user: int, new: bool) -> np.ndarray:
        own = self._lists[TASKS[new]][user]
        return np.concatenate([own, without(self._popularity(user, new), own)])[:LIST_LENGTH]

    @staticmethod
    def _ask(
        model: Any, users: np.ndarray, taken: csr_matrix, item: np.ndarray, new: bool
    ) -> dict[int, np.ndarray]:
        n = min(LIST_LENGTH, len(item))
        found, scores = model.recommend(users, taken[users], N=n, filter_already_liked_items=new)
        real = (found >= 0) & (scores > np.finfo(np.float32).min)  # what fills up too short a list
        return {int(user): item[row[here]] for user, row, here in zip(users, found, real, strict=True)}


def item_neighbours(period: EvaluationPeriod) -> Collaborative:
    return Collaborative(period, lambda: TFIDFRecommender(**NEIGHBOURS))


def factors(period: EvaluationPeriod) -> Collaborative:
    return Collaborative(period, lambda: AlternatingLeastSquares(**FACTORS, random_state=IMPLICIT_SEED))


def purchases(period: EvaluationPeriod) -> csr_matrix:
    """At how many times each user bought each item, float32 (users, items)."""
    users, items = len(period.fit.start) - 1, len(period.catalogue)
    pair, _ = pair_times(period.fit, items, np.arange(len(period.fit)))
    ones = np.ones(len(pair), dtype=np.float32)
    return csr_matrix((ones, (pair // items, pair % items)), shape=(users, items))

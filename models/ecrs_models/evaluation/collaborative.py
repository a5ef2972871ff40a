"""Collaborative filtering baselines from the library implicit: what a shop could use without this platform.

They are part of the full report only and need the extra `evaluate`. Both are fitted only on the purchases
before the period; the value of a user-item pair is the number of distinct times at which the user bought the
item.

Settings and weighting were chosen on the tuning period of The Complete Journey (fit before 2017-11-06,
measured on the following four weeks) by the sum of recall@20 over both tasks. The candidates were item-kNN
with TF-IDF, BM25 and plain cosine, K from 10 to 100; iALS with 64 to 256 factors, regularisation 0.05 to 10,
alpha 1 and 10; and counts or their logarithm.
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
    """A fitted model of implicit. Lists that it cannot fill are completed with popular items.

    Sources: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008;
    Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001.
    """

    def __init__(self, period: EvaluationPeriod, make: Callable[[], Any]) -> None:
        """Fit the model that `make` returns on the period's purchases, and compute the lists of its users."""
        self._popularity = Popularity(period)
        item = np.flatnonzero(period.catalogue)  # without empty columns, which the factor model would score
        bought = purchases(period)[:, item]
        users = np.array(sorted(period.truth))
        with threadpool_limits(1, "blas"), warnings.catch_warnings():  # implicit starts its own threads
            warnings.simplefilter("ignore")  # implicit warns that its own conversions are slow
            model = make()
            model.fit(bought, show_progress=False)
            self._lists = {task: self._recommend(model, users, bought, item, task == "new") for task in TASKS}

    def __call__(self, user: int, new: bool) -> np.ndarray:
        """Return LIST_LENGTH item rows, best first. With `new`, items that the user bought are left out."""
        own = self._lists[TASKS[new]][user]
        return np.concatenate([own, without(self._popularity(user, new), own)])[:LIST_LENGTH]

    @staticmethod
    def _recommend(
        model: Any, users: np.ndarray, bought: csr_matrix, item: np.ndarray, new: bool
    ) -> dict[int, np.ndarray]:
        n = min(LIST_LENGTH, len(item))
        columns, scores = model.recommend(users, bought[users], N=n, filter_already_liked_items=new)
        real = (columns >= 0) & (scores > np.finfo(np.float32).min)  # implicit pads lists that are too short
        return {int(user): item[row[keep]] for user, row, keep in zip(users, columns, real, strict=True)}


def item_neighbours(period: EvaluationPeriod) -> Collaborative:
    """Fit item-kNN with TF-IDF weighting, settings NEIGHBOURS."""
    return Collaborative(period, lambda: TFIDFRecommender(**NEIGHBOURS))


def factors(period: EvaluationPeriod) -> Collaborative:
    """Fit matrix factorisation by implicit alternating least squares (iALS), settings FACTORS."""
    return Collaborative(period, lambda: AlternatingLeastSquares(**FACTORS, random_state=IMPLICIT_SEED))


def purchases(period: EvaluationPeriod) -> csr_matrix:
    """Return the number of distinct times each user bought each item: float32 (users, items)."""
    users, items = len(period.fit.start) - 1, len(period.catalogue)
    pair, _ = pair_times(period.fit, items, np.arange(len(period.fit)))
    ones = np.ones(len(pair), dtype=np.float32)
    return csr_matrix((ones, (pair // items, pair % items)), shape=(users, items))

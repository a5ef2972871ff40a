"""Simple recommenders, fitted in the run that they are compared in; the heavy ones are in `collaborative`."""

from collections.abc import Callable

import numpy as np

from ecrs.domain.clock import DAY_S
from ecrs_models.evaluation import metrics
from ecrs_models.evaluation.period import EvaluationPeriod

Recommender = Callable[[int, bool], np.ndarray]
"""User number and whether what the user had is left out → item numbers, best first."""

LIST_LENGTH = max(metrics.CUTOFFS)
POPULARITY_DAYS = 14
SEGMENT_PRIOR = 3000.0
"""Purchases of a segment at which its own sales weigh as much as everybody's; of 300, 1000 and 3000 the best
on The Complete Journey's tuning period."""


class Popularity:
    """What was bought most in the last POPULARITY_DAYS, then in all the time before."""

    def __init__(self, period: EvaluationPeriod) -> None:
        size = len(period.catalogue)
        recent = period.fit.between(period.start - POPULARITY_DAYS * DAY_S, period.start)
        counts = np.bincount(recent.item, minlength=size), np.bincount(period.fit.item, minlength=size)
        order = np.lexsort((-counts[1], -counts[0]))
        self._order = order[period.catalogue[order]]
        self._bought = period.bought

    def __call__(self, user: int, new: bool) -> np.ndarray:
        return without(self._order, self._bought(user)) if new else self._order


class SegmentPopularity:
    """What others of the same profile bought most in the last POPULARITY_DAYS.

    `segment`, int64 (users,), from 0 on. A segment's counts are eked out with SEGMENT_PRIOR purchases
    of what everybody bought, so that a small one is not ranked by chance. The user's own purchases do
    not count: in a segment of few they would give away a user who is asked for as if new.
    """

    def __init__(self, period: EvaluationPeriod, segment: np.ndarray) -> None:
        recent = period.fit.between(period.start - POPULARITY_DAYS * DAY_S, period.start)
        size = len(period.catalogue)
        shares = [np.bincount(of.item, minlength=size) / max(len(of), 1) for of in (recent, period.fit)]
        self._everybody = np.where(period.catalogue, SEGMENT_PRIOR * (shares[0] + 1e-6 * shares[1]), -np.inf)
        order = np.argsort(segment[recent.user], kind="stable")
        self._item, self._segment, self._recent = recent.item[order], segment, recent
        self._start = np.searchsorted(segment[recent.user][order], np.arange(segment.max(initial=0) + 2))
        self._bought, self._available = period.bought, int(period.catalogue.sum())

    def __call__(self, user: int, new: bool) -> np.ndarray:
        segment, size = self._segment[user], len(self._everybody)
        others = self._item[self._start[segment] : self._start[segment + 1]]
        own = self._recent.item[self._recent.start[user] : self._recent.start[user + 1]]
        counts = np.bincount(others, minlength=size) - np.bincount(own, minlength=size)
        score = self._everybody + counts
        excluded = self._bought(user) if new else own[:0]
        length = min(LIST_LENGTH + len(excluded), self._available)
        first = np.argpartition(-score, length - 1)[:length]
        return without(first[np.lexsort((first, -score[first]))], excluded)


class HistoryThenPopularity:
    """The user's own items by how often they were bought, the newer first among equals; then popularity."""

    def __init__(self, period: EvaluationPeriod) -> None:
        self._history, self._popularity = period.history, Popularity(period)

    def __call__(self, user: int, new: bool) -> np.ndarray:
        if new:
            return self._popularity(user, new)
        items, newest, counts = np.unique(self._history(user)[::-1], return_index=True, return_counts=True)
        own = items[np.lexsort((newest, -counts))]
        return np.concatenate([own, without(self._popularity(user, False), own)])


def without(items: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """At most LIST_LENGTH of `items` that are not among `excluded`, in their order."""
    head = items[: LIST_LENGTH + len(excluded)]
    return head[~np.isin(head, excluded)][:LIST_LENGTH]


def profile_segments(profiles: np.ndarray) -> np.ndarray:
    """Numbers from 0 on, int64 (users,), of the distinct rows of `profiles`, (users, fields)."""
    return np.unique(profiles, axis=0, return_inverse=True)[1].reshape(-1)

"""Simple baseline recommenders, fitted in the evaluation that compares them with the platform.

The expensive ones are in `collaborative`.
"""

from collections.abc import Callable

import numpy as np

from ecrs.domain.clock import DAY_S
from ecrs_models.evaluation import metrics
from ecrs_models.evaluation.period import EvaluationPeriod

Recommender = Callable[[int, bool], np.ndarray]
"""Maps a user's row and `new` to item rows, best first. With `new`, items the user bought are left out."""

LIST_LENGTH = max(metrics.CUTOFFS)
POPULARITY_DAYS = 14
SEGMENT_PRIOR = 3000.0
"""Number of purchases at which a segment's own sales weigh as much as the sales to all users.

The best of 300, 1000 and 3000 on the tuning period of The Complete Journey.
"""


class Popularity:
    """Items by their purchases in the last POPULARITY_DAYS; ties by the purchases of the whole log."""

    def __init__(self, period: EvaluationPeriod) -> None:
        """Count the purchases before the period."""
        size = len(period.catalogue)
        recent = period.fit.between(period.start - POPULARITY_DAYS * DAY_S, period.start)
        counts = np.bincount(recent.item, minlength=size), np.bincount(period.fit.item, minlength=size)
        order = np.lexsort((-counts[1], -counts[0]))
        self._order = order[period.catalogue[order]]
        self._bought = period.bought

    def __call__(self, user: int, new: bool) -> np.ndarray:
        """Return item rows, best first. With `new`, items that the user bought are left out."""
        return without(self._order, self._bought(user)) if new else self._order


class SegmentPopularity:
    """Items by the purchases of other users with the same profile in the last POPULARITY_DAYS.

    The counts of a segment are smoothed with SEGMENT_PRIOR purchases distributed as those of all users, so
    that the ranking of a small segment is not random. The user's own purchases are not counted: in a small
    segment they would leak the purchases of a user who is evaluated as if new.
    """

    def __init__(self, period: EvaluationPeriod, segment: np.ndarray) -> None:
        """Count the purchases of each segment. `segment`, int64 (users,), are segment numbers from 0."""
        recent = period.fit.between(period.start - POPULARITY_DAYS * DAY_S, period.start)
        size = len(period.catalogue)
        shares = [np.bincount(log.item, minlength=size) / max(len(log), 1) for log in (recent, period.fit)]
        self._prior = np.where(period.catalogue, SEGMENT_PRIOR * (shares[0] + 1e-6 * shares[1]), -np.inf)
        order = np.argsort(segment[recent.user], kind="stable")
        self._item, self._segment, self._recent = recent.item[order], segment, recent
        self._start = np.searchsorted(segment[recent.user][order], np.arange(segment.max(initial=0) + 2))
        self._bought, self._available = period.bought, int(period.catalogue.sum())

    def __call__(self, user: int, new: bool) -> np.ndarray:
        """Like `Popularity`, with at most LIST_LENGTH items."""
        segment, size = self._segment[user], len(self._prior)
        others = self._item[self._start[segment] : self._start[segment + 1]]
        own = self._recent.item[self._recent.start[user] : self._recent.start[user + 1]]
        counts = np.bincount(others, minlength=size) - np.bincount(own, minlength=size)
        score = self._prior + counts
        excluded = self._bought(user) if new else own[:0]
        length = min(LIST_LENGTH + len(excluded), self._available)
        first = np.argpartition(-score, length - 1)[:length]
        return without(first[np.lexsort((first, -score[first]))], excluded)


class HistoryThenPopularity:
    """The user's own items by number of purchases, ties by the latest purchase; then popular items.

    Popular items only if items that the user bought are to be left out.
    """

    def __init__(self, period: EvaluationPeriod) -> None:
        self._history, self._popularity = period.history, Popularity(period)

    def __call__(self, user: int, new: bool) -> np.ndarray:
        """Return item rows, best first. With `new`, items that the user bought are left out."""
        if new:
            return self._popularity(user, new)
        items, newest, counts = np.unique(self._history(user)[::-1], return_index=True, return_counts=True)
        own = items[np.lexsort((newest, -counts))]
        return np.concatenate([own, without(self._popularity(user, False), own)])


def without(items: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """Return the first LIST_LENGTH of `items` that are not in `excluded`, in their order."""
    head = items[: LIST_LENGTH + len(excluded)]
    return head[~np.isin(head, excluded)][:LIST_LENGTH]


def profile_segments(profiles: np.ndarray) -> np.ndarray:
    """Number the distinct rows of `profiles`, shape (users, fields), from 0. Returns int64 (users,)."""
    return np.unique(profiles, axis=0, return_inverse=True)[1].reshape(-1)

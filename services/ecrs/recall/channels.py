"""The retrieval channels that use tables of the bundle instead of vectors. No I/O.

Each channel maps a user's aggregates to catalogue rows with scores, best first. The code is vectorised:
serving runs it once per request, training for thousands of users at each past snapshot.
"""

from dataclasses import dataclass

import numpy as np

from ecrs.domain.aggregates import decayed
from ecrs.features.catalogue import NO_ID

PRIOR_ORDERS = 50.0
"""Weight of the prior in a user's category mix: after this many actions, decayed as in `Interest`, the user's
own categories weigh as much as those of all users."""


@dataclass(frozen=True)
class ScoredItems:
    """Items of one channel, best first.

    `item`: int64, shape (N,), rows of the catalogue. `score`: float32, shape (N,).
    """

    item: np.ndarray
    score: np.ndarray

    def first(self, n: int) -> "ScoredItems":
        """Return the first `n` items."""
        return ScoredItems(self.item[:n], self.score[:n])


@dataclass(frozen=True)
class Interest:
    """A user's interest in each item of the aggregates, exponentially decayed to the time of the request.

    `item`: int64, shape (M,), rows of the catalogue. `bought`: float64, shape (M,), the number of purchases,
    which decays to 1/e in 120 days (`LONG_S` of the aggregates). `engaged`: float64, shape (M,), the weighted
    number of other actions, which decays to 1/e in 30 days (`SHORT_S`).
    """

    item: np.ndarray
    bought: np.ndarray
    engaged: np.ndarray

    @classmethod
    def of(cls, item: np.ndarray, numbers: np.ndarray, now: float) -> "Interest":
        """Decay aggregates to `now`, in Unix seconds.

        `item`: int64, shape (M,), rows of the catalogue; rows of NO_ID, unknown items, are left out.
        `numbers`: `Aggregates.numbers`.
        """
        known = item != NO_ID
        _, bought, engaged = decayed(numbers[known], now)
        return cls(item[known], bought, engaged)

    def never_bought(self) -> "Interest":
        """Return the items that the user engaged with and never bought."""
        unbought = self.bought == 0
        return Interest(self.item[unbought], self.bought[unbought], self.engaged[unbought])

    @property
    def weight(self) -> np.ndarray:
        """Weight of each item for finding similar ones: the square root of its decayed actions."""
        return np.sqrt(self.bought + self.engaged)


def repurchase(interest: Interest) -> ScoredItems:
    """Return all items that the user bought or engaged with, by their decayed number of actions."""
    score = interest.bought + interest.engaged
    order = np.argsort(-score, kind="stable")
    return ScoredItems(interest.item[order], score[order].astype(np.float32))


@dataclass(frozen=True)
class SimilarItems:
    """The nearest neighbours of each item.

    `item`: int32, shape (items, neighbours), rows of the catalogue, padded with NO_ID. `score`: float32, the
    same shape.
    """

    item: np.ndarray
    score: np.ndarray

    def scores(self, interest: Interest) -> np.ndarray:
        """Score every item by its similarity to the user's items, weighted by interest: float64, (items,)."""
        neighbours = self.item[interest.item]
        present = neighbours != NO_ID
        weights = (self.score[interest.item] * interest.weight[:, None].astype(np.float32))[present]
        return np.bincount(neighbours[present], weights, minlength=len(self.item))


MAX_POPULAR = 10_000
"""Most items that `popular` chooses from, so that its time does not grow with the catalogue."""


def most_sold(share: np.ndarray) -> np.ndarray:
    """Return the rows of the MAX_POPULAR items with the highest share of sales: int64, in ascending order."""
    return np.sort(np.argsort(-share, kind="stable")[:MAX_POPULAR])


@dataclass(frozen=True)
class PopularItems:
    """Popular items, re-weighted by the user's category affinity. Needs no model.

    `share`: float64, shape (items,), each item's share of recent sales. `category`: int64, shape (items,),
    counted from 0. `prior`: float64, shape (categories,), each category's share of recent sales. `sellers`:
    int64, rows of the items to choose from, see `most_sold`.
    """

    share: np.ndarray
    category: np.ndarray
    prior: np.ndarray
    sellers: np.ndarray

    def lift(self, interest: Interest) -> np.ndarray:
        """Return the user's affinity to each category, relative to all users: float64, (categories,)."""
        return self.mix(interest) / np.maximum(self.prior, 1e-12)

    def scores(self, item: np.ndarray, lift: np.ndarray) -> np.ndarray:
        """Return P(item | category) · P(category | user) for the rows `item`: float64, shape (len(item),).

        `lift` is the user's `lift`. For a new user, the score is the item's share of sales.
        """
        return self.share[item] * lift[self.category[item]]

    def mix(self, interest: Interest) -> np.ndarray:
        """Return P(category | user), smoothed by the prior: float64, shape (categories,)."""
        weight = interest.bought + interest.engaged
        own = np.bincount(self.category[interest.item], weight, len(self.prior))
        return (own + PRIOR_ORDERS * self.prior) / (own.sum() + PRIOR_ORDERS)


def top_items(item: np.ndarray, scores: np.ndarray, n: int) -> ScoredItems:
    """Return the `n` of `item` with the highest scores, best first, without those that score 0 or less."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > n:
        positive = positive[np.argpartition(-scores[positive], n - 1)[:n]]
    best = positive[np.argsort(-scores[positive], kind="stable")]
    return ScoredItems(item[best], scores[best].astype(np.float32))

"""The recall channels that need no vector: what to propose to a user, out of tables of the bundle.

Each takes the user's aggregates and gives item rows, best first, with scores. Pure and vectorised:
training calls them for past moments by the thousand, serving once a request.
"""

from dataclasses import dataclass

import numpy as np

from ecrs.domain.aggregates import decayed
from ecrs.features.catalogue import NO_ID

PRIOR_ORDERS = 50.0
"""How many purchases a user must have made for the own mix of categories to weigh as much as everybody's."""


@dataclass(frozen=True)
class ScoredItems:
    """`item`, int64 (N,), rows of the bundle's products, best first; `score`, float32 (N,)."""

    item: np.ndarray
    score: np.ndarray

    def first(self, n: int) -> "ScoredItems":
        return ScoredItems(self.item[:n], self.score[:n])


@dataclass(frozen=True)
class Interest:
    """How much of each product the user took, decayed to `now`: `item`, int64 (M,), rows; `bought`,
    `engaged`, float64 (M,)."""

    item: np.ndarray
    bought: np.ndarray
    engaged: np.ndarray

    @classmethod
    def of(cls, item: np.ndarray, numbers: np.ndarray, now: float) -> "Interest":
        """From aggregates; products that the bundle does not know are left out."""
        known = item != NO_ID
        _, bought, engaged = decayed(numbers[known], now)
        return cls(item[known], bought, engaged)

    def never_bought(self) -> "Interest":
        """What was engaged alone."""
        engaged = self.bought == 0
        return Interest(self.item[engaged], self.bought[engaged], self.engaged[engaged])

    @property
    def weight(self) -> np.ndarray:
        return np.sqrt(self.bought + self.engaged)


def repurchase(interest: Interest) -> ScoredItems:
    """What the user bought or engaged before, by how much and how lately."""
    score = interest.bought + interest.engaged
    order = np.argsort(-score, kind="stable")
    return ScoredItems(interest.item[order], score[order].astype(np.float32))


@dataclass(frozen=True)
class SimilarItems:
    """Products that go with products: `item`, int32, `score`, float32, (items, neighbours); NO_ID fills."""

    item: np.ndarray
    score: np.ndarray

    def scores(self, interest: Interest) -> np.ndarray:
        """How well each product goes with all that the user took, by its weight: float64 (items,)."""
        neighbours = self.item[interest.item]
        real = neighbours != NO_ID
        weights = (self.score[interest.item] * interest.weight[:, None].astype(np.float32))[real]
        return np.bincount(neighbours[real], weights, minlength=len(self.item))


MAX_POPULAR = 10_000
"""How many products can be popular, so that the time it takes does not grow with the catalogue."""


def most_sold(share: np.ndarray) -> np.ndarray:
    """int64, the SELLERS items of the highest share of sales, in the order of their numbers."""
    return np.sort(np.argsort(-share, kind="stable")[:MAX_POPULAR])


@dataclass(frozen=True)
class PopularItems:
    """What sells, bent towards the categories of the user.

    `share`, float64 (items,), of all recent sales; `category`, int64 (items,), from 0 on; `prior`,
    float64 (categories,), the sales' share of each; `sellers`, the items to choose from.
    """

    share: np.ndarray
    category: np.ndarray
    prior: np.ndarray
    sellers: np.ndarray

    def lift(self, interest: Interest) -> np.ndarray:
        """How much more the user likes each category than everybody does, float64 (categories,)."""
        return self.mix(interest) / np.maximum(self.prior, 1e-12)

    def scores(self, item: np.ndarray, lift: np.ndarray) -> np.ndarray:
        """P(item | category) · P(category | user) of some items, float64; for a new user that is what
        sells."""
        return self.share[item] * lift[self.category[item]]

    def mix(self, interest: Interest) -> np.ndarray:
        """P(category | user), float64 (categories,)."""
        weight = interest.bought + interest.engaged
        own = np.bincount(self.category[interest.item], weight, len(self.prior))
        return (own + PRIOR_ORDERS * self.prior) / (own.sum() + PRIOR_ORDERS)


def top_items(item: np.ndarray, scores: np.ndarray, n: int) -> ScoredItems:
    """The `n` of `item` with the highest scores above 0."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > n:
        positive = positive[np.argpartition(-scores[positive], n - 1)[:n]]
    found = positive[np.argsort(-scores[positive], kind="stable")]
    return ScoredItems(item[found], scores[found].astype(np.float32))

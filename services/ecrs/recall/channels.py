"""The recall channels that need no vector: what to propose to a user, out of tables of the bundle.

Each takes the user's totals and gives item rows, best first, with scores. Pure and vectorised:
training calls them for past moments by the thousand, serving once a request.
"""

from dataclasses import dataclass

import numpy as np

from ecrs.catalogue import NO_ID
from ecrs.totals import faded

PRIOR_ORDERS = 50.0
"""How many purchases a user must have made for the own mix of categories to weigh as much as everybody's."""


@dataclass(frozen=True)
class Found:
    """`item`, int64 (N,), rows of the bundle's products, best first; `score`, float32 (N,)."""

    item: np.ndarray
    score: np.ndarray

    def best(self, n: int) -> "Found":
        return Found(self.item[:n], self.score[:n])


@dataclass(frozen=True)
class Interest:
    """How much of each product the user took, faded to `now`: `item`, int64 (M,), rows; `bought`,
    `touched`, float64 (M,)."""

    item: np.ndarray
    bought: np.ndarray
    touched: np.ndarray

    @classmethod
    def of(cls, item: np.ndarray, numbers: np.ndarray, now: float) -> "Interest":
        """From totals; products that the bundle does not know are left out."""
        known = item != NO_ID
        _, bought, touched = faded(numbers[known], now)
        return cls(item[known], bought, touched)

    def never_bought(self) -> "Interest":
        """What was touched alone."""
        touched = self.bought == 0
        return Interest(self.item[touched], self.bought[touched], self.touched[touched])

    @property
    def weight(self) -> np.ndarray:
        return np.sqrt(self.bought + self.touched)


def again(interest: Interest) -> Found:
    """What the user bought or touched before, by how much and how lately."""
    score = interest.bought + interest.touched
    order = np.argsort(-score, kind="stable")
    return Found(interest.item[order], score[order].astype(np.float32))


@dataclass(frozen=True)
class Similar:
    """Products that go with products: `item`, int32, `score`, float32, (items, neighbours); NO_ID fills."""

    item: np.ndarray
    score: np.ndarray

    def scores(self, interest: Interest) -> np.ndarray:
        """How well each product goes with all that the user took, by its weight: float64 (items,)."""
        neighbours = self.item[interest.item]
        real = neighbours != NO_ID
        weights = (self.score[interest.item] * interest.weight[:, None].astype(np.float32))[real]
        return np.bincount(neighbours[real], weights, minlength=len(self.item))


SELLERS = 10_000
"""How many products can be popular, so that the time it takes does not grow with the catalogue."""


def best_sellers(share: np.ndarray) -> np.ndarray:
    """int64, the SELLERS items of the highest share of sales, in the order of their numbers."""
    return np.sort(np.argsort(-share, kind="stable")[:SELLERS])


@dataclass(frozen=True)
class Popular:
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
        weight = interest.bought + interest.touched
        own = np.bincount(self.category[interest.item], weight, len(self.prior))
        return (own + PRIOR_ORDERS * self.prior) / (own.sum() + PRIOR_ORDERS)


def best(item: np.ndarray, scores: np.ndarray, n: int) -> Found:
    """The `n` of `item` with the highest scores above 0."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > n:
        positive = positive[np.argpartition(-scores[positive], n - 1)[:n]]
    found = positive[np.argsort(-scores[positive], kind="stable")]
    return Found(item[found], scores[found].astype(np.float32))

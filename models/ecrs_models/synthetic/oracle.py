"""How good recommendations of generated data can be: a ranking by the true probabilities.

In a period of the split, a user's purchases are drawn one like the other (`prepare.generate`). So no
ranking finds more of them, on average, than that by the probability of a purchase, in both tasks.
"""

import json
from collections.abc import Callable

import numpy as np
import polars as pl

from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.synthetic.planted import SLOTS, TRUTH, TRUTH_PRODUCTS, TRUTH_USERS


def is_planted(data: Dataset) -> bool:
    """Whether the data set is generated, so that its truth is known."""
    return (data.path / TRUTH).is_file()


class Oracle:
    """A recommender of `length` items that knows the planted tastes and what was `bought`.

    `bought`: user number → the items of the user's purchases before the period, with repeats.
    DataError if the data set is not generated.
    """

    def __init__(self, data: Dataset, bought: Callable[[int], np.ndarray], length: int) -> None:
        try:
            self._truth = json.loads((data.path / TRUTH).read_text(encoding="utf-8"))
            users = pl.read_parquet(data.path / TRUTH_USERS)
            items = pl.read_parquet(data.path / TRUTH_PRODUCTS)
        except FileNotFoundError as error:
            raise DataError(f"{data.path} is not generated: there is no {error.filename}") from None
        self._bought, self._length = bought, length
        self._sex, self._repeat = users["sex"].to_numpy(), users["repeat"].to_numpy().astype(np.float64)
        self._slots = users.select(f"category_{slot}" for slot in range(SLOTS)).to_numpy()
        self._brands = users.select(f"brand_{slot}" for slot in range(SLOTS)).to_numpy()
        self._category, self._brand = items["category"].to_numpy(), items["brand"].to_numpy()
        self._weight = items["weight"].to_numpy()
        self._in_brand = self._weight / np.bincount(self._brand, self._weight)[self._brand]
        self._any = np.array(self._truth["ordered"])[:, self._category] * self._weight
        self._best = [np.argsort(-row, kind="stable") for row in self._any]
        self._by_category = _Groups(self._category, self._weight)
        self._by_brand = _Groups(self._brand, self._weight)

    def __call__(self, user: int, new: bool) -> np.ndarray:
        """The likeliest items, best first; with `new`, of those that the user did not have."""
        bought = self._bought(user)
        head = self._length + (len(bought) if new else 0)  # as many may be taken out
        groups = [self._by_category.head(category, head) for category in self._slots[user]]
        groups += [self._by_brand.head(brand, head) for brand in self._brands[user]]
        items = np.unique(np.concatenate([self._best[self._sex[user]][:head], bought, *groups]))
        if new:
            items = items[~np.isin(items, bought)]
        return items[np.argsort(-self.probabilities(user, items), kind="stable")][: self._length]

    def probabilities(self, user: int, items: np.ndarray) -> np.ndarray:
        """That the user's next purchase in the period is each of `items`: float64, sum 1 over all items."""
        sources = self._sources(user)
        chance = sources[-1] * self._any[self._sex[user], items]
        loyalty = self._truth["loyalty"]
        for slot in range(SLOTS):
            here = (1 - loyalty) * (self._category[items] == self._slots[user, slot]) * self._weight[items]
            mine = loyalty * (self._brand[items] == self._brands[user, slot]) * self._in_brand[items]
            chance += sources[slot] * (here + mine)
        bought = self._bought(user)
        if not len(bought):
            return chance
        own, counts = np.unique(bought, return_counts=True)
        place = np.minimum(np.searchsorted(own, items), len(own) - 1)
        again = np.where(own[place] == items, counts[place] / len(bought), 0.0)
        return (1 - self._repeat[user]) * chance + self._repeat[user] * again

    def _sources(self, user: int) -> np.ndarray:
        """Where a purchase by taste comes from: each preferred category, then any; sum 1."""
        affinity, weights = self._truth["affinity"], np.array(self._truth["slot_weights"])
        liked = affinity * weights * np.array(self._truth["conversion"])[self._slots[user]]
        either = np.append(liked, (1 - affinity) * self._truth["order_rate"][self._sex[user]])
        return either / either.sum()


class _Groups:
    """Items by group, the heaviest first."""

    def __init__(self, group: np.ndarray, weight: np.ndarray) -> None:
        self._order = np.lexsort((-weight, group))
        self._start = np.searchsorted(group[self._order], np.arange(group.max() + 2))

    def head(self, group: int, length: int) -> np.ndarray:
        return self._order[self._start[group] : self._start[group + 1]][:length]

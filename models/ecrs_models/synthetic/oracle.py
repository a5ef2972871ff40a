"""The oracle: a recommender that ranks by the true purchase probabilities of synthetic data.

Within an evaluation period of the split, a user's purchases are independent draws from one distribution
(`ecrs_models.synthetic.generate`). The ranking by the probabilities of that distribution is therefore the
best possible: at every list length and in both tasks, no other ranking contains more of the purchases on
average.
"""

import json
from collections.abc import Callable

import numpy as np
import polars as pl

from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.synthetic.planted import SLOTS, TRUTH, TRUTH_PRODUCTS, TRUTH_USERS


def is_planted(data: Dataset) -> bool:
    """True if the data set is synthetic, so that its purchase probabilities are known."""
    return (data.path / TRUTH).is_file()


class Oracle:
    """Recommends the `length` items that the user is most likely to purchase in the evaluation period.

    `bought` maps a user's row to the items of the user's purchases before the period, with repeats. Raises
    DataError if the data set is not synthetic.
    """

    def __init__(self, data: Dataset, bought: Callable[[int], np.ndarray], length: int) -> None:
        try:
            self._truth = json.loads((data.path / TRUTH).read_text(encoding="utf-8"))
            users = pl.read_parquet(data.path / TRUTH_USERS)
            items = pl.read_parquet(data.path / TRUTH_PRODUCTS)
        except FileNotFoundError as error:
            raise DataError(f"{data.path} is not a synthetic data set: {error.filename} is missing") from None
        self._bought, self._length = bought, length
        self._sex, self._repeat = users["sex"].to_numpy(), users["repeat"].to_numpy().astype(np.float64)
        self._slots = users.select(f"category_{slot}" for slot in range(SLOTS)).to_numpy()
        self._brands = users.select(f"brand_{slot}" for slot in range(SLOTS)).to_numpy()
        self._category, self._brand = items["category"].to_numpy(), items["brand"].to_numpy()
        self._weight = items["weight"].to_numpy()
        self._weight_in_brand = self._weight / np.bincount(self._brand, self._weight)[self._brand]
        self._any_category = np.array(self._truth["ordered"])[:, self._category] * self._weight
        self._best = [np.argsort(-row, kind="stable") for row in self._any_category]
        self._by_category = _Groups(self._category, self._weight)
        self._by_brand = _Groups(self._brand, self._weight)

    def __call__(self, user: int, new: bool) -> np.ndarray:
        """Return the most likely items, best first. With `new`, items that the user bought are left out.

        Only items that can be in the result are scored: the most likely ones for the user's sex, of each
        preferred category and of each preferred brand, and those the user bought.
        """
        bought = self._bought(user)
        head = self._length + (len(bought) if new else 0)  # up to len(bought) items are removed below
        groups = [self._by_category.head(category, head) for category in self._slots[user]]
        groups += [self._by_brand.head(brand, head) for brand in self._brands[user]]
        items = np.unique(np.concatenate([self._best[self._sex[user]][:head], bought, *groups]))
        if new:
            items = items[~np.isin(items, bought)]
        return items[np.argsort(-self.probabilities(user, items), kind="stable")][: self._length]

    def probabilities(self, user: int, items: np.ndarray) -> np.ndarray:
        """Return the probability that a purchase of the user in the period is of each of `items`.

        float64, shape of `items`; the sum over all items of the catalogue is 1.
        """
        sources = self._sources(user)
        by_preference = sources[-1] * self._any_category[self._sex[user], items]
        loyalty = self._truth["loyalty"]
        for slot in range(SLOTS):
            in_category = self._category[items] == self._slots[user, slot]
            of_brand = self._brand[items] == self._brands[user, slot]
            any_brand = (1 - loyalty) * in_category * self._weight[items]
            own_brand = loyalty * of_brand * self._weight_in_brand[items]
            by_preference += sources[slot] * (any_brand + own_brand)
        bought = self._bought(user)
        if not len(bought):
            return by_preference
        own, counts = np.unique(bought, return_counts=True)
        index = np.minimum(np.searchsorted(own, items), len(own) - 1)
        repeated = np.where(own[index] == items, counts[index] / len(bought), 0.0)
        return (1 - self._repeat[user]) * by_preference + self._repeat[user] * repeated

    def _sources(self, user: int) -> np.ndarray:
        """Return the probability that a purchase by preference comes from each slot, then from any category.

        float64, shape (SLOTS + 1,), sum 1; as `Tastes.slot_probabilities`.
        """
        affinity, weights = self._truth["affinity"], np.array(self._truth["slot_weights"])
        preferred = affinity * weights * np.array(self._truth["conversion"])[self._slots[user]]
        rates = np.append(preferred, (1 - affinity) * self._truth["order_rate"][self._sex[user]])
        return rates / rates.sum()


class _Groups:
    """The items of each group, in descending order of weight."""

    def __init__(self, group: np.ndarray, weight: np.ndarray) -> None:
        self._order = np.lexsort((-weight, group))
        self._start = np.searchsorted(group[self._order], np.arange(group.max() + 2))

    def head(self, group: int, length: int) -> np.ndarray:
        """Return the first `length` items of a group."""
        return self._order[self._start[group] : self._start[group + 1]][:length]

"""The ranker's features of a user and a candidate: one function for training and serving.

Features are computed from the user's aggregates, the candidates and their provenance, which a request
carries, and from two tables of the bundle: the catalogue, which gives the brand, shop and category of the
items in the aggregates, and the item statistics. `now` is the time of the request. No later data is used, so
that the same call builds a training example as of its cutoff.
"""

from dataclasses import dataclass

import numpy as np

from ecrs.domain.aggregates import (
    AGGREGATE_COLUMNS,
    ENGAGEMENTS,
    FIRST_ORDER,
    LAST_ENGAGEMENT,
    LAST_ORDER,
    ORDERS,
    decayed,
)
from ecrs.domain.clock import DAY_S
from ecrs.features.catalogue import NO_ID
from ecrs.features.encoding import ITEM_GROUPS

STATISTICS = (
    *("share_7d", "share_28d", "share_84d", "share_all", "trend"),
    *("buyers", "repeat_rate", "interval_days", "first_purchase_share", "age_days"),
)
"""Sales statistics of an item as of the bundle's cutoff.

`share_…`: log(1 + s), where s is the item's share of all purchases, in millionths, in the last 7, 28 and 84
days and in the whole log. `trend`: `share_7d` minus `share_28d`. `buyers`: log(1 + number of buyers).
`repeat_rate`: share of the buyers who bought the item again. `interval_days`: median days between two
purchases by the same buyer. `first_purchase_share`: share of the last 84 days' purchases that were a buyer's
first of this item. `age_days`: days since its first sale.
"""
INTERVAL_DAYS = STATISTICS.index("interval_days")

CHANNELS = ("repurchase", "similar", "popular", "vector")
"""Retrieval channels, in the order of the columns of `EncodedCandidates.positions` and `scores`."""

GROUP_NUMBERS = ("orders", "long", "short", "share", "since", "products", "engagement")
"""Features of each of ITEM_GROUPS, from the user's actions on items of the candidate's group."""

FEATURES = (
    *STATISTICS,
    *("user_products", "user_orders", "user_since", "user_tenure", "user_exploration", "user_repeats"),
    *("orders", "long", "short", "share", "since", "interval", "due", "rate", "item_due", "first_since"),
    *("engagements", "engagement", "engagement_since"),
    *(f"{group}_{number}" for group in ITEM_GROUPS for number in GROUP_NUMBERS),
    *("category_due", "share_in_category", "since_in_category"),
    *(f"{channel}_{number}" for channel in CHANNELS for number in ("position", "score")),
    *("channels", "best_position"),
)
"""Columns of `ranking_features`. A number that does not exist is NaN."""

EXPLORATION_S = 56 * DAY_S
"""Period in which the user's share of new items, `user_exploration`, is counted."""


@dataclass(frozen=True)
class EncodedAggregates:
    """A user's aggregates for M items, with the groups of each item.

    `item`: int64, shape (M,), rows of the catalogue. `groups`: int64, shape (M, len(ITEM_GROUPS)), ids of
    brand, shop and category. Both are NO_ID where unknown. `numbers`: float64, shape
    (M, len(AGGREGATE_COLUMNS)).
    """

    item: np.ndarray
    groups: np.ndarray
    numbers: np.ndarray


@dataclass(frozen=True)
class EncodedCandidates:
    """N candidates, encoded.

    `item`, int64, shape (N,), and `groups`, int64, shape (N, len(ITEM_GROUPS)), are as in
    `EncodedAggregates`. `statistics`: float32, shape (N, len(STATISTICS)). `positions` and `scores`: shape
    (N, len(CHANNELS)), NaN where a channel did not find the candidate or has no score for it.
    """

    item: np.ndarray
    groups: np.ndarray
    statistics: np.ndarray
    positions: np.ndarray
    scores: np.ndarray


def ranking_features(past: EncodedAggregates, candidates: EncodedCandidates, now: float) -> np.ndarray:
    """Return the features of N candidates: float32, shape (N, len(FEATURES)); `now` is in Unix seconds."""
    return _Features(past, candidates, now).matrix()


class _Features:
    def __init__(self, past: EncodedAggregates, candidates: EncodedCandidates, now: float) -> None:
        past = past if len(past.item) else _NO_AGGREGATES
        self.candidates, self.past, self.now = candidates, past, now
        numbers = past.numbers
        self.since = _days(now - numbers[:, LAST_ORDER], numbers[:, ORDERS] > 0)
        self.engagement_since = _days(now - numbers[:, LAST_ENGAGEMENT], numbers[:, ENGAGEMENTS] > 0)
        self.short, self.long, self.engagement = decayed(numbers, now)
        self.total = max(float(self.long.sum()), 1e-9)
        self.own_row, self.has_own = match(past.item, candidates.item)
        self.groups = _Groups.from_ids(past.groups, candidates.groups)

    def matrix(self) -> np.ndarray:
        sums = self._sums()
        n = len(self.candidates.item)
        group_features = np.where(self.groups.known[..., None], sums[self.groups.row], _NO_GROUP)
        columns = [
            self.candidates.statistics,
            np.broadcast_to(self._user(), (n, 6)),
            self._item(),
            group_features.reshape(n, -1),
            self._within_category(sums),
            self._channels(),
        ]
        return np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind")

    def _user(self) -> np.ndarray:
        """Return the `user_…` features, shape (6,): how much the user buys, and how often something new."""
        numbers = self.past.numbers
        bought = numbers[:, ORDERS] > 0
        products, orders = int(bought.sum()), float(numbers[:, ORDERS].sum())
        if not products:
            return np.array([0, 0, np.nan, np.nan, np.nan, np.nan])
        recent = bought & (numbers[:, LAST_ORDER] > self.now - EXPLORATION_S)
        new = recent & (numbers[:, FIRST_ORDER] > self.now - EXPLORATION_S)
        return np.array([
            np.log1p(products),
            np.log1p(orders),
            self.since[bought].min(),
            (self.now - numbers[bought, FIRST_ORDER].min()) / DAY_S,
            new.sum() / recent.sum() if recent.any() else np.nan,
            orders / products,
        ])  # fmt: skip

    def _item(self) -> np.ndarray:
        """Return the features of the user's own actions on the candidate: shape (N, 13)."""
        row, has_own = self.own_row, self.has_own
        numbers = self.past.numbers[row]
        orders = np.where(has_own, numbers[:, ORDERS], 0)
        bought = orders > 0
        since = np.where(bought, self.since[row], np.nan)
        span = (numbers[:, LAST_ORDER] - numbers[:, FIRST_ORDER]) / DAY_S
        interval = np.where(orders > 1, span / np.maximum(orders - 1, 1), np.nan)
        first_since = np.where(bought, (self.now - numbers[:, FIRST_ORDER]) / DAY_S, np.nan)
        long = np.where(has_own, self.long[row], 0)
        item_interval = self.candidates.statistics[:, INTERVAL_DAYS]
        return np.stack([
            orders,
            long,
            np.where(has_own, self.short[row], 0),
            long / self.total,
            since,
            interval,
            since / np.maximum(interval, 0.5),
            orders / np.maximum(first_since, 7),
            since / np.maximum(item_interval, 0.5),
            first_since,
            np.where(has_own, numbers[:, ENGAGEMENTS], 0),
            np.where(has_own, self.engagement[row], 0),
            np.where(has_own, self.engagement_since[row], np.nan),
        ], axis=1)  # fmt: skip

    def _sums(self) -> np.ndarray:
        """Return the group features of each brand, shop and category: shape (groups, len(GROUP_NUMBERS))."""
        numbers, groups = self.past.numbers, self.groups
        since = groups.min(np.where(np.isnan(self.since), np.inf, self.since))
        long = groups.sum(self.long)
        return np.stack([
            groups.sum(numbers[:, ORDERS]),
            long,
            groups.sum(self.short),
            long / self.total,
            np.where(np.isinf(since), np.nan, since),
            groups.sum(numbers[:, ORDERS] > 0),
            groups.sum(self.engagement),
        ], axis=1)  # fmt: skip

    def _within_category(self, sums: np.ndarray) -> np.ndarray:
        """Return the features of the candidate's category: shape (N, 3).

        They are how due the next purchase in the category is, the candidate's share of the user's purchases
        in it, and the days by which its last purchase is older than the category's.
        """
        numbers, category = self.past.numbers, ITEM_GROUPS.index("category")
        row, known = self.groups.row[:, category], self.groups.known[:, category]
        first = self.groups.min(np.where(numbers[:, ORDERS] > 0, numbers[:, FIRST_ORDER], np.inf))
        orders, since = sums[:, 0], sums[:, 4]
        span = np.where(np.isinf(first), np.nan, (self.now - first) / DAY_S - since)
        due = since * np.maximum(orders - 1, 1) / np.maximum(span, 0.5)
        share = np.where(self.has_own, self.long[self.own_row], 0) / np.maximum(sums[row, 1], 1e-9)
        older = np.where(self.has_own, self.since[self.own_row], np.nan) - since[row]
        features = np.stack([np.where(orders > 1, due, np.nan)[row], share, older], axis=1)
        return np.where(known[:, None], features, np.nan)

    def _channels(self) -> np.ndarray:
        """Return the features of the provenance: shape (N, 2 * len(CHANNELS) + 2).

        They are each channel's position and score, the number of channels that found the candidate, and its
        best position.
        """
        positions, scores = self.candidates.positions, self.candidates.scores
        by_channel = np.stack([positions, scores], axis=2).reshape(len(positions), -1)
        found = ~np.isnan(positions)
        best = np.where(found, positions, np.inf).min(axis=1, initial=np.inf)
        best = np.where(np.isinf(best), np.nan, best)
        return np.concatenate([by_channel, found.sum(axis=1)[:, None], best[:, None]], axis=1)


@dataclass(frozen=True)
class _Groups:
    """The items of the aggregates grouped by brand, by shop and by category; each id of each is one group.

    `count`: number of groups. `group`: int64, shape (M · len(ITEM_GROUPS),), the groups of each item of the
    aggregates. `row`: int64, shape (N, len(ITEM_GROUPS)), the groups of each candidate. `known`: bool, of the
    same shape, False where no item of the aggregates is in the candidate's group.
    """

    count: int
    group: np.ndarray
    row: np.ndarray
    known: np.ndarray

    @classmethod
    def from_ids(cls, past: np.ndarray, candidates: np.ndarray) -> "_Groups":
        """Build the groups from `EncodedAggregates.groups` and `EncodedCandidates.groups`."""
        # Offsets make the ids of the three kinds distinct. NO_ID stays negative, and so unknown.
        offsets = np.arange(len(ITEM_GROUPS))
        keys, group = np.unique((past * len(ITEM_GROUPS) + offsets).ravel(), return_inverse=True)
        return cls(len(keys), group, *match(keys, candidates * len(ITEM_GROUPS) + offsets))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum a value per item of the aggregates, shape (M,), over each group: float64, shape (count,)."""
        return np.bincount(self.group, values.repeat(len(ITEM_GROUPS)), self.count)

    def min(self, values: np.ndarray) -> np.ndarray:
        """Return the smallest value in each group; shapes as for `sum`."""
        smallest = np.full(self.count, np.inf)
        np.minimum.at(smallest, self.group, values.repeat(len(ITEM_GROUPS)))
        return smallest


_NO_GROUP = np.array([np.nan if number == "since" else 0 for number in GROUP_NUMBERS])
"""Features of a group in which the user has no aggregates."""

_NO_AGGREGATES = EncodedAggregates(
    np.full(1, NO_ID), np.full((1, len(ITEM_GROUPS)), NO_ID), np.zeros((1, len(AGGREGATE_COLUMNS)))
)
"""Stands for empty aggregates: one unknown item without actions, so that arrays can be indexed."""


def match(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find each of `wanted` in `known`.

    Returns its index in `known`, int64, and whether it was found, bool, both in the shape of `wanted`. The
    index of a value that was not found is arbitrary but valid. NO_ID matches nothing.
    """
    order = np.argsort(known, kind="stable")
    position = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    row = order[position]
    return row, (known[row] == wanted) & (wanted >= 0)


def _days(seconds: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """Convert seconds since an event to days; NaN where it never happened."""
    return np.where(happened, np.maximum(seconds, 0) / DAY_S, np.nan)

"""The numbers that the ranker sees of a user and a candidate: one function for training and serving.

Everything is computed from what travels in a request, the user's aggregates and the candidates' records,
and from the item table of the bundle, which says what the products of the aggregates are. `now` is the
moment of the request; nothing later is looked at, so a training example is built as of its cut-off by
the same call.
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
    *("buyers", "repeat_rate", "interval_days", "newcomers", "age_days"),
)
"""Of a product, as of the bundle's moment; in item records in this order.

Log share of all purchases of the last 7, 28, 84 and of all days; log of the 7-day share over the
28-day one; log of buyers; share of buyers who came back; their median days between; share of the last
84 days' purchases that were a buyer's first; days since it first sold.
"""
INTERVAL_DAYS = STATISTICS.index("interval_days")

CHANNELS = ("repurchase", "similar", "popular", "vector")
"""Recall channels in the order of a candidate's `positions` and `scores`."""

GROUP_NUMBERS = ("orders", "long", "short", "share", "since", "products", "engagement")
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
"""Columns of `ranking_features`; NaN stands for "there is no such number"."""

EXPLORATION_S = 56 * DAY_S


@dataclass(frozen=True)
class EncodedAggregates:
    """A user's aggregates, with what the products are.

    `item`, int64 (M,), rows of the bundle's products; `groups`, int64 (M, 3), ids of ITEM_GROUPS; NO_ID
    where unknown; `numbers`, float64 (M, AGGREGATE_COLUMNS).
    """

    item: np.ndarray
    groups: np.ndarray
    numbers: np.ndarray


@dataclass(frozen=True)
class EncodedCandidates:
    """Candidates as rows of the catalogue.

    `item`, int64 (N,), and `groups`, int64 (N, 3), as in `EncodedAggregates`; `statistics`, float32
    (N, STATISTICS); `positions` and `scores`, float32 (N, CHANNELS), NaN where a channel did not find the
    candidate.
    """

    item: np.ndarray
    groups: np.ndarray
    statistics: np.ndarray
    positions: np.ndarray
    scores: np.ndarray


def ranking_features(past: EncodedAggregates, candidates: EncodedCandidates, now: float) -> np.ndarray:
    """float32, shape (N, len(FEATURES))."""
    return _Features(past, candidates, now).matrix()


class _Features:
    def __init__(self, past: EncodedAggregates, candidates: EncodedCandidates, now: float) -> None:
        past = past if len(past.item) else _NOTHING
        self.candidates, self.past, self.now = candidates, past, now
        numbers = past.numbers
        self.since = _days(now - numbers[:, LAST_ORDER], numbers[:, ORDERS] > 0)
        self.engagement_since = _days(now - numbers[:, LAST_ENGAGEMENT], numbers[:, ENGAGEMENTS] > 0)
        self.short, self.long, self.engagement = decayed(numbers, now)
        self.total = max(float(self.long.sum()), 1e-9)
        self.own, self.had = match(past.item, candidates.item)
        self.groups = _Groups.of_both(past.groups, candidates.groups)

    def matrix(self) -> np.ndarray:
        sums = self._sums()
        n = len(self.candidates.item)
        of_groups = np.where(self.groups.known[..., None], sums[self.groups.row], _NEVER)
        columns = [
            self.candidates.statistics,
            np.broadcast_to(self._user(), (n, 6)),
            self._item(),
            of_groups.reshape(n, -1),
            self._within_category(sums),
            self._channels(),
        ]
        return np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind")

    def _user(self) -> np.ndarray:
        """How much the user buys, and how often something new."""
        numbers = self.past.numbers
        bought = numbers[:, ORDERS] > 0
        products, orders = int(bought.sum()), float(numbers[:, ORDERS].sum())
        if not products:
            return np.array([0, 0, np.nan, np.nan, np.nan, np.nan])
        lately = bought & (numbers[:, LAST_ORDER] > self.now - EXPLORATION_S)
        new = lately & (numbers[:, FIRST_ORDER] > self.now - EXPLORATION_S)
        return np.array([
            np.log1p(products),
            np.log1p(orders),
            self.since[bought].min(),
            (self.now - numbers[bought, FIRST_ORDER].min()) / DAY_S,
            new.sum() / lately.sum() if lately.any() else np.nan,
            orders / products,
        ])  # fmt: skip

    def _item(self) -> np.ndarray:
        """What the user did to the candidate itself."""
        row, had = self.own, self.had
        numbers = self.past.numbers[row]
        orders = np.where(had, numbers[:, ORDERS], 0)
        bought = orders > 0
        since = np.where(bought, self.since[row], np.nan)
        span = (numbers[:, LAST_ORDER] - numbers[:, FIRST_ORDER]) / DAY_S
        interval = np.where(orders > 1, span / np.maximum(orders - 1, 1), np.nan)
        first_since = np.where(bought, (self.now - numbers[:, FIRST_ORDER]) / DAY_S, np.nan)
        long = np.where(had, self.long[row], 0)
        usual = self.candidates.statistics[:, INTERVAL_DAYS]
        return np.stack([
            orders,
            long,
            np.where(had, self.short[row], 0),
            long / self.total,
            since,
            interval,
            since / np.maximum(interval, 0.5),
            orders / np.maximum(first_since, 7),
            since / np.maximum(usual, 0.5),
            first_since,
            np.where(had, numbers[:, ENGAGEMENTS], 0),
            np.where(had, self.engagement[row], 0),
            np.where(had, self.engagement_since[row], np.nan),
        ], axis=1)  # fmt: skip

    def _sums(self) -> np.ndarray:
        """What the user did to products of each brand, shop and category: float64 (groups, GROUP_NUMBERS)."""
        numbers, groups = self.past.numbers, self.groups
        since = groups.least(np.where(np.isnan(self.since), np.inf, self.since))
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
        """How due the category is, and the candidate's place in it."""
        numbers, category = self.past.numbers, ITEM_GROUPS.index("category")
        row, known = self.groups.row[:, category], self.groups.known[:, category]
        first = self.groups.least(np.where(numbers[:, ORDERS] > 0, numbers[:, FIRST_ORDER], np.inf))
        orders, since = sums[:, 0], sums[:, 4]
        span = np.where(np.isinf(first), np.nan, (self.now - first) / DAY_S - since)
        due = since * np.maximum(orders - 1, 1) / np.maximum(span, 0.5)
        share = np.where(self.had, self.long[self.own], 0) / np.maximum(sums[row, 1], 1e-9)
        between = np.where(self.had, self.since[self.own], np.nan) - since[row]
        found = np.stack([np.where(orders > 1, due, np.nan)[row], share, between], axis=1)
        return np.where(known[:, None], found, np.nan)

    def _channels(self) -> np.ndarray:
        positions, scores = self.candidates.positions, self.candidates.scores
        each = np.stack([positions, scores], axis=2).reshape(len(positions), -1)
        found = ~np.isnan(positions)
        best = np.where(found, positions, np.inf).min(axis=1, initial=np.inf)
        best = np.where(np.isinf(best), np.nan, best)
        return np.concatenate([each, found.sum(axis=1)[:, None], best[:, None]], axis=1)


@dataclass(frozen=True)
class _Groups:
    """The past by brand, shop and category at once, each value of each a group.

    `count`; `of`, int64 (M · ITEM_GROUPS,), the groups of each product of the past; `row` and `known`,
    (N, ITEM_GROUPS), those of each candidate, and whether the past has them.
    """

    count: int
    of: np.ndarray
    row: np.ndarray
    known: np.ndarray

    @classmethod
    def of_both(cls, past: np.ndarray, candidates: np.ndarray) -> "_Groups":
        """From the ids of ITEM_GROUPS: int64, (M, ITEM_GROUPS) and (N, ITEM_GROUPS)."""
        apart = np.arange(len(ITEM_GROUPS))  # NO_ID stays below 0, and so unknown
        keys, of = np.unique((past * len(ITEM_GROUPS) + apart).ravel(), return_inverse=True)
        return cls(len(keys), of, *match(keys, candidates * len(ITEM_GROUPS) + apart))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Of a value for each product of the past, (M,), the sum over each group's: float64 (count,)."""
        return np.bincount(self.of, values.repeat(len(ITEM_GROUPS)), self.count)

    def least(self, values: np.ndarray) -> np.ndarray:
        """As `sum`, the least."""
        least = np.full(self.count, np.inf)
        np.minimum.at(least, self.of, values.repeat(len(ITEM_GROUPS)))
        return least


_NEVER = np.array([np.nan if number == "since" else 0 for number in GROUP_NUMBERS])

_NOTHING = EncodedAggregates(
    np.full(1, NO_ID), np.full((1, len(ITEM_GROUPS)), NO_ID), np.zeros((1, len(AGGREGATE_COLUMNS)))
)
"""A past with one padding product that nothing was done to: what can be indexed without asking."""


def match(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `wanted` is in `known`, int64, and whether it is there at all, bool.

    0 where it is not, so that the row can be read and thrown away. NO_ID matches nothing.
    """
    order = np.argsort(known, kind="stable")
    place = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    row = order[place]
    return row, (known[row] == wanted) & (wanted >= 0)


def _days(seconds: np.ndarray, happened: np.ndarray) -> np.ndarray:
    return np.where(happened, np.maximum(seconds, 0) / DAY_S, np.nan)

"""User-item aggregates of all users, computed from a log.

The log ends at the cutoff of a snapshot. The same functions compute the aggregates of a bundle and those of
the past snapshots that the ranker learns from.
"""

from dataclasses import dataclass

import numpy as np

from ecrs.domain.actions import ActionType
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, ENGAGEMENT_WEIGHT, LONG_S, MAX_PRODUCTS, SHORT_S
from ecrs_models.data.log import Log


@dataclass(frozen=True)
class AggregatesByUser:
    """The user-item aggregates of all users.

    `item`, int32 (M,); `numbers`, float64 (M, AGGREGATE_COLUMNS); `start`, int64 (users + 1,): user u has
    rows [start[u], start[u + 1]), newest action first.
    """

    start: np.ndarray
    item: np.ndarray
    numbers: np.ndarray

    def of(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `item` and `numbers` of one user."""
        rows = slice(self.start[user], self.start[user + 1])
        return self.item[rows], self.numbers[rows]


def aggregate_by_user(log: Log, items: int, limit: int = MAX_PRODUCTS) -> AggregatesByUser:
    """Compute the aggregates of all users, equal to `Aggregates.plus` over each user's actions.

    `items` is the number of items in the table. Per user, the `limit` items with the newest actions are kept.
    """
    users = len(log.start) - 1
    orders = _orders(log, items)
    engagements = _engagements(log, items)
    pairs = np.union1d(orders[0], engagements[0])
    numbers = np.zeros((len(pairs), len(AGGREGATE_COLUMNS)))
    numbers[np.searchsorted(pairs, orders[0]), :5] = orders[1]
    numbers[np.searchsorted(pairs, engagements[0]), 5:] = engagements[1]
    user, item = pairs // items, pairs % items
    newest = np.maximum(
        numbers[:, AGGREGATE_COLUMNS.index("last_order")],
        numbers[:, AGGREGATE_COLUMNS.index("last_engagement")],
    )
    order = np.lexsort((item, -newest, user))
    user = user[order]
    start = np.searchsorted(user, np.arange(users + 1))
    keep = np.arange(len(order)) - start[user] < limit
    order, user = order[keep], user[keep]
    start = np.searchsorted(user, np.arange(users + 1))
    return AggregatesByUser(start, item[order].astype(np.int32), numbers[order])


def pair_times(log: Log, items: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct times at which each user acted on each item, in the given rows of the log.

    The result is `user * items + item`, int64, and Unix seconds, sorted by both.
    """
    pair = log.user[rows].astype(np.int64) * items + log.item[rows]
    ts = log.ts[rows]
    order = np.lexsort((ts, pair))
    pair, ts = pair[order], ts[order]
    first = np.r_[True, (pair[1:] != pair[:-1]) | (ts[1:] != ts[:-1])] if len(pair) else np.zeros(0, bool)
    return pair[first], ts[first]


def _orders(log: Log, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the user-item pairs with orders, and their first five AGGREGATE_COLUMNS."""
    pair, ts = pair_times(log, items, log.order_rows())
    if not len(pair):
        return pair, np.zeros((0, 5))
    begin = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
    counts = np.diff(np.r_[begin, len(pair)])
    last = ts[begin + counts - 1]
    age = (np.repeat(last, counts) - ts).astype(np.float64)
    decayed = [np.add.reduceat(np.exp(-age / time_constant), begin) for time_constant in (SHORT_S, LONG_S)]
    return pair[begin], np.stack([counts, ts[begin], last, *decayed], axis=1)


def _engagements(log: Log, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the user-item pairs with other actions, and their last three AGGREGATE_COLUMNS."""
    other = np.ones(len(log), dtype=bool)
    other[log.order_rows()] = False
    pair = log.user[other].astype(np.int64) * items + log.item[other]
    ts, weight = log.ts[other], _WEIGHTS[log.type[other]]
    if not len(pair):
        return pair, np.zeros((0, 3))
    order = np.lexsort((ts, pair))
    pair, ts, weight = pair[order], ts[order], weight[order]
    begin = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
    counts = np.diff(np.r_[begin, len(pair)])
    last = ts[begin + counts - 1]
    age = (np.repeat(last, counts) - ts).astype(np.float64)
    engagement = np.add.reduceat(weight * np.exp(-age / SHORT_S), begin)
    return pair[begin], np.stack([counts, last, engagement], axis=1)


_WEIGHTS = np.array([ENGAGEMENT_WEIGHT.get(kind, 0.2) for kind in ActionType])

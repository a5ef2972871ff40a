"""What is known at a snapshot: aggregates of users, statistics of products, tables of the recall channels.

All of it is computed from the log before the snapshot and nothing else, so that the same functions give
the tables of a bundle and those of the past snapshots that the ranker learns from.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ecrs.domain.actions import ActionType
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, ENGAGEMENT_WEIGHT, LONG_S, MAX_PRODUCTS, SHORT_S
from ecrs.domain.clock import DAY_S
from ecrs_models.data.log import Log


@dataclass(frozen=True)
class AggregatesByUser:
    """The aggregates of every user.

    `item`, int32 (M,); `numbers`, float64 (M, AGGREGATE_COLUMNS). User u has rows [start[u], start[u + 1]),
    newest action first.
    """

    start: np.ndarray
    item: np.ndarray
    numbers: np.ndarray

    def of(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(self.start[user], self.start[user + 1])
        return self.item[rows], self.numbers[rows]


def aggregate_by_user(log: Log, items: int, limit: int = MAX_PRODUCTS) -> AggregatesByUser:
    """`Aggregates.plus` of each user's actions, for all of them at once."""
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


def order_times(log: Log, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Each user's purchase of a product at a time, once: `user · items + item` and Unix seconds, sorted."""
    bought = log.purchase_rows()
    pair = log.user[bought].astype(np.int64) * items + log.item[bought]
    ts = log.ts[bought]
    order = np.lexsort((ts, pair))
    pair, ts = pair[order], ts[order]
    first = np.r_[True, (pair[1:] != pair[:-1]) | (ts[1:] != ts[:-1])] if len(pair) else np.zeros(0, bool)
    return pair[first], ts[first]


def _orders(log: Log, items: int) -> tuple[np.ndarray, np.ndarray]:
    """User-product pairs that were bought, and their first five AGGREGATE_COLUMNS."""
    pair, ts = order_times(log, items)
    if not len(pair):
        return pair, np.zeros((0, 5))
    begin = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
    counts = np.diff(np.r_[begin, len(pair)])
    last = ts[begin + counts - 1]
    age = (np.repeat(last, counts) - ts).astype(np.float64)
    decayed = [np.add.reduceat(np.exp(-age / fade), begin) for fade in (SHORT_S, LONG_S)]
    return pair[begin], np.stack([counts, ts[begin], last, *decayed], axis=1)


def _engagements(log: Log, items: int) -> tuple[np.ndarray, np.ndarray]:
    """User-product pairs with other actions, and their last three AGGREGATE_COLUMNS."""
    other = np.ones(len(log), dtype=bool)
    other[log.purchase_rows()] = False
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


def _log_share(counts: np.ndarray) -> np.ndarray:
    """log of the share of all, in millionths, plus one."""
    return np.log1p(counts * (1e6 / max(counts.sum(), 1)))


def _median_interval(item: np.ndarray, ts: np.ndarray, first_of_pair: np.ndarray, items: int) -> np.ndarray:
    """Days between a buyer's purchases of a product, the median over all; NaN if nobody came back."""
    later = np.flatnonzero(~first_of_pair)
    median = np.full(items, np.nan)
    if not len(later):
        return median
    of, gap = item[later], (ts[later] - ts[later - 1]) / DAY_S
    order = np.lexsort((gap, of))
    of, gap = of[order], gap[order]
    begin = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    counts = np.diff(np.r_[begin, len(of)])
    median[of[begin]] = gap[begin + (counts - 1) // 2]
    return median


def _gram(user: np.ndarray, item: np.ndarray, users: int, items: int) -> np.ndarray:
    """How many users bought both, float32 (items, items)."""
    bought = csr_array((np.ones(len(user), dtype=np.float32), (user, item)), shape=(users, items))
    return (bought.T @ bought).toarray()

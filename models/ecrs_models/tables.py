"""What is known at a moment: totals of users, statistics of products, tables of the recall channels.

All of it is computed from the log before the moment and nothing else, so that the same functions give
the tables of a bundle and those of the past moments that the ranker learns from.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ecrs.actions import ActionType
from ecrs.clock import DAY_S
from ecrs.ranking_features import STATISTICS
from ecrs.totals import LONG_S, MAX_PRODUCTS, SHORT_S, TOTALS, TOUCH_WEIGHT
from ecrs_models.dataset import Log

HORIZONS_DAYS = (7, 28, 84)


@dataclass(frozen=True)
class UserTotals:
    """`ecrs.totals` of every user: `item`, int32 (M,); `numbers`, float64 (M, TOTALS); user u has the
    rows [start[u], start[u + 1]), those of the newest action first."""

    start: np.ndarray
    item: np.ndarray
    numbers: np.ndarray

    def of(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(self.start[user], self.start[user + 1])
        return self.item[rows], self.numbers[rows]


def user_totals(log: Log, items: int, limit: int = MAX_PRODUCTS) -> UserTotals:
    """`Totals.plus` of each user's actions, for all of them at once."""
    users = len(log.start) - 1
    orders = _orders(log, items)
    touches = _touches(log, items)
    pairs = np.union1d(orders[0], touches[0])
    numbers = np.zeros((len(pairs), len(TOTALS)))
    numbers[np.searchsorted(pairs, orders[0]), :5] = orders[1]
    numbers[np.searchsorted(pairs, touches[0]), 5:] = touches[1]
    user, item = pairs // items, pairs % items
    newest = np.maximum(numbers[:, TOTALS.index("last_order")], numbers[:, TOTALS.index("last_touch")])
    order = np.lexsort((item, -newest, user))
    user = user[order]
    start = np.searchsorted(user, np.arange(users + 1))
    keep = np.arange(len(order)) - start[user] < limit
    order, user = order[keep], user[keep]
    start = np.searchsorted(user, np.arange(users + 1))
    return UserTotals(start, item[order].astype(np.int32), numbers[order])


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
    """User-product pairs that were bought, and their first five TOTALS."""
    pair, ts = order_times(log, items)
    if not len(pair):
        return pair, np.zeros((0, 5))
    begin = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
    counts = np.diff(np.r_[begin, len(pair)])
    last = ts[begin + counts - 1]
    age = (np.repeat(last, counts) - ts).astype(np.float64)
    decayed = [np.add.reduceat(np.exp(-age / fade), begin) for fade in (SHORT_S, LONG_S)]
    return pair[begin], np.stack([counts, ts[begin], last, *decayed], axis=1)


def _touches(log: Log, items: int) -> tuple[np.ndarray, np.ndarray]:
    """User-product pairs with other actions, and their last three TOTALS."""
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
    touch = np.add.reduceat(weight * np.exp(-age / SHORT_S), begin)
    return pair[begin], np.stack([counts, last, touch], axis=1)


_WEIGHTS = np.array([TOUCH_WEIGHT.get(kind, 0.2) for kind in ActionType])


def item_statistics(log: Log, items: int, now: int) -> np.ndarray:
    """float32, shape (items, len(STATISTICS)), as of `now`; NaN where a product was never bought."""
    pair, ts = order_times(log, items)
    item = pair % items
    table = np.full((items, len(STATISTICS)), np.nan)
    sold = np.bincount(item, minlength=items) > 0
    first_of_pair = np.r_[True, pair[1:] != pair[:-1]] if len(pair) else np.zeros(0, dtype=bool)
    shares = []
    for days in HORIZONS_DAYS:
        counts = np.bincount(item[ts >= now - days * DAY_S], minlength=items)
        shares.append(_log_share(counts))
    table[:, 0], table[:, 1], table[:, 2] = shares
    table[:, 3] = _log_share(np.bincount(item, minlength=items))
    table[:, 4] = shares[0] - shares[1]
    buyers = np.bincount(item[first_of_pair], minlength=items)
    again = np.zeros(items)
    begin = np.flatnonzero(first_of_pair)
    counts = np.diff(np.r_[begin, len(pair)])
    np.add.at(again, item[begin], counts > 1)
    table[:, 5] = np.log1p(buyers)
    table[:, 6] = again / np.maximum(buyers, 1)
    table[:, 7] = _median_interval(item, ts, first_of_pair, items)
    recent = ts >= now - HORIZONS_DAYS[-1] * DAY_S
    sales = np.bincount(item[recent], minlength=items)
    table[:, 8] = np.bincount(item[recent & first_of_pair], minlength=items) / np.maximum(sales, 1)
    first = np.full(items, np.inf)
    np.minimum.at(first, item, ts)
    table[:, 9] = (now - first) / DAY_S
    table[~sold] = np.nan
    return table.astype(np.float32)


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


def popular_counts(log: Log, items: int, now: int, days: int) -> np.ndarray:
    """Purchases of each product in the last `days`, and, far below, in all the time before."""
    bought = log.purchases()
    recent = bought.between(now - days * DAY_S, now)
    counts = np.bincount(recent.item, minlength=items).astype(np.float64)
    return counts + 1e-6 * np.bincount(bought.item, minlength=items)


def similar_items(
    log: Log, items: int, *, most: int, ridge: float, neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which products go with which, learned from who bought what: EASE over the `most` bought products.

    `ridge` is the regularisation as a share of the number of users. Returns `item`, int32, and
    `score`, float32, both (items, neighbours), best first; -1 and 0 fill up, and are all there is of
    products that are not among the `most` bought.
    Source: Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019.
    """
    users = len(log.start) - 1
    pair, _ = order_times(log, items)
    pair = np.unique(pair)
    user, item = pair // items, pair % items
    buyers = np.bincount(item, minlength=items)
    kept = np.argsort(-buyers, kind="stable")[:most]
    kept = np.sort(kept[buyers[kept] > 1])
    table, scores = (
        np.full((items, neighbours), -1, dtype=np.int32),
        np.zeros((items, neighbours), np.float32),
    )
    if len(kept) < 2:
        return table, scores
    place = np.full(items, -1)
    place[kept] = np.arange(len(kept))
    inside = place[item] >= 0
    gram = _gram(user[inside], place[item[inside]], users, len(kept))
    gram[np.diag_indices(len(kept))] += ridge * len(np.unique(user))
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    width = min(neighbours, len(kept) - 1)
    best = np.argpartition(-weights, width - 1, axis=1)[:, :width]
    found = np.take_along_axis(weights, best, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    best, found = np.take_along_axis(best, order, axis=1), np.take_along_axis(found, order, axis=1)
    table[kept, :width] = np.where(found > 0, kept[best], -1)
    scores[kept, :width] = np.maximum(found, 0)
    return table, scores


def _gram(user: np.ndarray, item: np.ndarray, users: int, items: int) -> np.ndarray:
    """How many users bought both, float32 (items, items)."""
    bought = csr_array((np.ones(len(user), dtype=np.float32), (user, item)), shape=(users, items))
    return (bought.T @ bought).toarray()

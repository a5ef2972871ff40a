"""Sales statistics and popularity of items at a cutoff time."""

import numpy as np

from ecrs.domain.clock import DAY_S
from ecrs.features.ranking import STATISTICS
from ecrs_models.data.log import Log
from ecrs_models.snapshots.aggregates import pair_times

HORIZONS_DAYS = (7, 28, 84)


def item_statistics(log: Log, items: int, now: int) -> np.ndarray:
    """Compute STATISTICS of all items as of `now`, Unix seconds, from a log that ends there.

    Returns float32, shape (items, len(STATISTICS)); NaN for items that were never bought.
    """
    pair, ts = pair_times(log, items, log.positive_rows())
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
    repeat_buyers = np.zeros(items)
    begin = np.flatnonzero(first_of_pair)
    counts = np.diff(np.r_[begin, len(pair)])
    np.add.at(repeat_buyers, item[begin], counts > 1)
    table[:, 5] = np.log1p(buyers)
    table[:, 6] = repeat_buyers / np.maximum(buyers, 1)
    table[:, 7] = _median_interval(item, ts, first_of_pair, items)
    recent = ts >= now - HORIZONS_DAYS[-1] * DAY_S
    sales = np.bincount(item[recent], minlength=items)
    table[:, 8] = np.bincount(item[recent & first_of_pair], minlength=items) / np.maximum(sales, 1)
    first = np.full(items, np.inf)
    np.minimum.at(first, item, ts)
    table[:, 9] = (now - first) / DAY_S
    table[~sold] = np.nan
    return table.astype(np.float32)


def popular_counts(log: Log, items: int, now: int, days: int) -> np.ndarray:
    """Return each item's purchases in the last `days` before `now`, float64 (items,).

    All purchases count too, with a weight of 1e-6, to order items with equal recent sales.
    """
    bought = log.positives()
    recent = bought.between(now - days * DAY_S, now)
    counts = np.bincount(recent.item, minlength=items).astype(np.float64)
    return counts + 1e-6 * np.bincount(bought.item, minlength=items)


def _log_share(counts: np.ndarray) -> np.ndarray:
    """Return log(1 + share of the total in millionths)."""
    return np.log1p(counts * (1e6 / max(counts.sum(), 1)))


def _median_interval(item: np.ndarray, ts: np.ndarray, first_of_pair: np.ndarray, items: int) -> np.ndarray:
    """Return each item's median number of days between purchases by the same user; NaN without any.

    The arguments are sorted by user-item pair, then time; `first_of_pair` marks the first row of each pair.
    """
    later = np.flatnonzero(~first_of_pair)
    median = np.full(items, np.nan)
    if not len(later):
        return median
    item, interval = item[later], (ts[later] - ts[later - 1]) / DAY_S
    order = np.lexsort((interval, item))
    item, interval = item[order], interval[order]
    begin = np.flatnonzero(np.r_[True, item[1:] != item[:-1]])
    counts = np.diff(np.r_[begin, len(item)])
    median[item[begin]] = interval[begin + (counts - 1) // 2]
    return median

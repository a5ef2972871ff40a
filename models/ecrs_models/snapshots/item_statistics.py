"""TODO ecrs_models.snapshots.item_statistics."""

import numpy as np

from ecrs.domain.clock import DAY_S
from ecrs.features.ranking import STATISTICS
from ecrs_models.data.log import Log
from ecrs_models.snapshots.aggregates import _log_share, _median_interval, order_times

HORIZONS_DAYS = (7, 28, 84)


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


def popular_counts(log: Log, items: int, now: int, days: int) -> np.ndarray:
    """Purchases of each product in the last `days`, and, far below, in all the time before."""
    bought = log.purchases()
    recent = bought.between(now - days * DAY_S, now)
    counts = np.bincount(recent.item, minlength=items).astype(np.float64)
    return counts + 1e-6 * np.bincount(bought.item, minlength=items)

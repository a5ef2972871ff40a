"""TODO ecrs_models.snapshots.similar_items."""

import numpy as np

from ecrs_models.data.log import Log
from ecrs_models.snapshots.aggregates import _gram, order_times


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

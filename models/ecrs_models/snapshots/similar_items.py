"""The table of the similar-items channel: items bought by the same users, by the item-item model EASE."""

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import csr_array

from ecrs_models.data.log import Log
from ecrs_models.snapshots.aggregates import pair_times

DENSE_CELLS = 100_000_000
"""Largest user-item matrix, in cells, that is multiplied as a dense one (400 MB): six times as fast."""


def similar_items(
    log: Log, items: int, *, most: int, ridge: float, neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit EASE on the user-item matrix of purchases, and return the neighbours of the most popular items.

    The model covers the `most` items with the most buyers, among those with at least two. `ridge` is the L2
    regularisation as a share of the number of users who bought anything. Returns `item`, int32, and `score`,
    float32, both (items, neighbours), best first. Missing neighbours, and all neighbours of items that the
    model does not cover, are -1 with score 0.
    Source: Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019.
    """
    users = len(log.start) - 1
    pair, _ = pair_times(log, items, log.positive_rows())
    pair = np.unique(pair)
    user, item = pair // items, pair % items
    buyers = np.bincount(item, minlength=items)
    kept = np.argsort(-buyers, kind="stable")[:most]
    kept = np.sort(kept[buyers[kept] > 1])
    table = np.full((items, neighbours), -1, dtype=np.int32)
    scores = np.zeros((items, neighbours), dtype=np.float32)
    if len(kept) < 2:
        return table, scores
    column = np.full(items, -1)
    column[kept] = np.arange(len(kept))
    covered = column[item] >= 0
    gram = _gram(user[covered], column[item[covered]], users, len(kept))
    gram[np.diag_indices(len(kept))] += ridge * len(np.unique(user))
    inverse = _inverse(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    width = min(neighbours, len(kept) - 1)
    best = np.argpartition(-weights, width - 1, axis=1)[:, :width]
    best_weights = np.take_along_axis(weights, best, axis=1)
    order = np.argsort(-best_weights, axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    best_weights = np.take_along_axis(best_weights, order, axis=1)
    table[kept, :width] = np.where(best_weights > 0, kept[best], -1)
    scores[kept, :width] = np.maximum(best_weights, 0)
    return table, scores


def _gram(user: np.ndarray, item: np.ndarray, users: int, items: int) -> np.ndarray:
    """Return the number of users who bought both items: float32 (items, items)."""
    if users * items <= DENSE_CELLS:
        dense = np.zeros((users, items), dtype=np.float32)
        dense[user, item] = 1
        return dense.T @ dense
    sparse = csr_array((np.ones(len(user), dtype=np.float32), (user, item)), shape=(users, items))
    return (sparse.T @ sparse).toarray()


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Invert a positive definite float32 matrix by Cholesky decomposition, five times as fast as numpy."""
    factor, failed = lapack.spotrf(np.asfortranarray(matrix), lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError(f"not positive definite: leading minor {failed}")
    inverse, _ = lapack.spotri(factor, lower=1, overwrite_c=1)
    lower = np.tril(inverse, -1)
    return lower + lower.T + np.diag(np.diag(inverse))

"""Recall, NDCG and hit rate of one recommendation list, coverage and novelty. Pure functions.

`hits`, bool, shape (length of the list,): True for each recommended item, best first, that is in the user's
ground truth, which has `relevant` items.
"""

from collections.abc import Iterable

import numpy as np

CUTOFFS = (20, 100)
METRICS = tuple(f"{name}@{k}" for k in CUTOFFS for name in ("recall", "ndcg", "hr"))
"""Names of the metrics that `measure` returns, in its order."""


def recall(hits: np.ndarray, relevant: int, k: int) -> float:
    """Return the share of the relevant items that are in the first k of the list."""
    return float(hits[:k].sum() / relevant)


def ndcg(hits: np.ndarray, relevant: int, k: int) -> float:
    """Return the NDCG of the first k: binary gain, discount 1/log2(rank + 1)."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    first = hits[:k]
    return float((first * discount[: len(first)]).sum() / discount[: min(k, relevant)].sum())


def hit_rate(hits: np.ndarray, k: int) -> float:
    """Return 1 if a relevant item is in the first k of the list, else 0."""
    return float(hits[:k].any())


def measure(recommended: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Compute METRICS for one user.

    Both arrays hold item rows; those of `relevant` are distinct, and it is not empty.
    """
    hits = np.isin(recommended, relevant)
    row: dict[str, float] = {}
    for k in CUTOFFS:
        row[f"recall@{k}"] = recall(hits, len(relevant), k)
        row[f"ndcg@{k}"] = ndcg(hits, len(relevant), k)
        row[f"hr@{k}"] = hit_rate(hits, k)
    return row


def coverage(lists: Iterable[np.ndarray], catalogue: np.ndarray, k: int = CUTOFFS[0]) -> float:
    """Return the share of the catalogue, bool (items,), that is in the first k of at least one list."""
    recommended = np.zeros(len(catalogue), dtype=bool)
    for items in lists:
        recommended[items[:k]] = True
    return float((recommended & catalogue).sum() / max(catalogue.sum(), 1))


def novelty(items: np.ndarray, share: np.ndarray, k: int = CUTOFFS[0]) -> float:
    """Return the mean of -log2(share) of the first k items, in bits; 0 for an empty list.

    `share`, float64 (items,), is each item's share of all purchases.
    Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 2010.
    """
    first = items[:k]
    return float(-np.log2(share[first]).mean()) if len(first) else 0.0

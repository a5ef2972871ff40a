"""Recall, NDCG and hit rate of one recommendation list. Pure.

`hits`, bool, shape (length of the list,): whether each recommended item, best first, is among
the `relevant` items the user really took.
"""

from collections.abc import Iterable

import numpy as np

CUTOFFS = (20, 100)
METRICS = tuple(f"{name}@{k}" for k in CUTOFFS for name in ("recall", "ndcg", "hr"))
"""What `measure` gives, in its order."""


def recall(hits: np.ndarray, relevant: int, k: int) -> float:
    """The share of the relevant items found in the first k."""
    return float(hits[:k].sum() / relevant)


def ndcg(hits: np.ndarray, relevant: int, k: int) -> float:
    """Binary gain, discount 1/log2(rank + 1), over that of the best possible list of length k."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    found = hits[:k]
    return float((found * discount[: len(found)]).sum() / discount[: min(k, relevant)].sum())


def hit_rate(hits: np.ndarray, k: int) -> float:
    """1 if anything relevant is in the first k."""
    return float(hits[:k].any())


def measure(recommended: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Every metric at every cut-off for one user; both are item numbers, `relevant` distinct, not empty."""
    hits = np.isin(recommended, relevant)
    row: dict[str, float] = {}
    for k in CUTOFFS:
        row[f"recall@{k}"] = recall(hits, len(relevant), k)
        row[f"ndcg@{k}"] = ndcg(hits, len(relevant), k)
        row[f"hr@{k}"] = hit_rate(hits, k)
    return row


def coverage(lists: Iterable[np.ndarray], catalogue: np.ndarray, k: int = CUTOFFS[0]) -> float:
    """The share of the catalogue, bool (items,), that anybody finds in the first k."""
    shown = np.zeros(len(catalogue), dtype=bool)
    for items in lists:
        shown[items[:k]] = True
    return float((shown & catalogue).sum() / max(catalogue.sum(), 1))


def novelty(items: np.ndarray, share: np.ndarray, k: int = CUTOFFS[0]) -> float:
    """The mean of -log2 of the first k items' share of all purchases, float64 (items,): bits.

    0 if nothing is recommended. Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma of
    recommender systems", PNAS 2010.
    """
    first = items[:k]
    return float(-np.log2(share[first]).mean()) if len(first) else 0.0

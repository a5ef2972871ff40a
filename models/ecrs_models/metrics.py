"""Recall, NDCG and hit rate of one recommendation list. Pure.

`hits`, bool, shape (length of the list,): whether each recommended item, best first, is among
the `relevant` items the user really took.
"""

from collections.abc import Sequence

import numpy as np

CUTOFFS = (20, 100)


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


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over users; empty if there are none."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}

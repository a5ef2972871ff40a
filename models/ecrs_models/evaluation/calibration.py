"""Whether the ranker's scores are the probabilities that they are meant to be."""

from dataclasses import dataclass

import numpy as np

BINS = 20


@dataclass(frozen=True)
class ScoredCandidates:
    """Candidates of all users: `scores`, float32 (N,); `taken`, bool (N,)."""

    scores: np.ndarray
    taken: np.ndarray


def calibration(scored: ScoredCandidates, bins: int = BINS) -> dict[str, float]:
    """Of the scores as probabilities of being taken: normalised entropy, the cross-entropy over that of
    always saying the mean (He et al., ADKDD 2014); expected calibration error over `bins` of equal size;
    and the sum of the scores over that of what was taken."""
    scores, taken = scored.scores.astype(np.float64), scored.taken
    rate = np.clip(taken.mean(), 1e-9, 1 - 1e-9)
    clipped = np.clip(scores, 1e-9, 1 - 1e-9)
    entropy = -np.mean(np.where(taken, np.log(clipped), np.log1p(-clipped)))
    base = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    curve = reliability(scored, bins)
    gap = sum(abs(part["predicted"] - part["taken"]) * part["candidates"] for part in curve)
    return {
        "normalised_entropy": float(entropy / base),
        "expected_calibration_error": float(gap / len(scores)),
        "predicted_over_taken": float(scores.sum() / max(taken.sum(), 1)),
    }


def reliability(scored: ScoredCandidates, bins: int = BINS) -> list[dict[str, float]]:
    """In `bins` of equal size, by ascending score: the mean score, the share taken, how many candidates."""
    scores = scored.scores.astype(np.float64)
    parts = np.array_split(np.argsort(scores, kind="stable"), bins)
    return [
        {
            "predicted": float(scores[part].mean()),
            "taken": float(scored.taken[part].mean()),
            "candidates": len(part),
        }
        for part in parts
        if len(part)
    ]

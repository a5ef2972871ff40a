"""Calibration: how well the ranker's scores match the observed purchase rates."""

from dataclasses import dataclass

import numpy as np

BINS = 20


@dataclass(frozen=True)
class ScoredCandidates:
    """Candidates of all users: `scores`, float32 (N,), and `label`, bool (N,)."""

    scores: np.ndarray
    label: np.ndarray


def calibration(scored: ScoredCandidates, bins: int = BINS) -> dict[str, float]:
    """Measure the scores as probabilities that a candidate is purchased.

    Returns the normalised entropy, that is, the cross-entropy divided by that of always predicting the mean
    (He et al., ADKDD 2014); the expected calibration error over `bins` of equal size; and the sum of the
    scores divided by the number of purchased candidates.
    """
    scores, label = scored.scores.astype(np.float64), scored.label
    rate = np.clip(label.mean(), 1e-9, 1 - 1e-9)
    clipped = np.clip(scores, 1e-9, 1 - 1e-9)
    entropy = -np.mean(np.where(label, np.log(clipped), np.log1p(-clipped)))
    base = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    curve = reliability(scored, bins)
    gap = sum(abs(part["predicted"] - part["observed"]) * part["candidates"] for part in curve)
    return {
        "normalised_entropy": float(entropy / base),
        "expected_calibration_error": float(gap / len(scores)),
        "predicted_over_observed": float(scores.sum() / max(label.sum(), 1)),
    }


def reliability(scored: ScoredCandidates, bins: int = BINS) -> list[dict[str, float]]:
    """Return the reliability curve over `bins` of equal size, by ascending score.

    A bin has `predicted`, the mean score; `observed`, the share of candidates purchased; and `candidates`,
    their number.
    """
    scores = scored.scores.astype(np.float64)
    parts = np.array_split(np.argsort(scores, kind="stable"), bins)
    return [
        {
            "predicted": float(scores[part].mean()),
            "observed": float(scored.label[part].mean()),
            "candidates": len(part),
        }
        for part in parts
        if len(part)
    ]

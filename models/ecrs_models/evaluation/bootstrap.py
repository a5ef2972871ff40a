"""How far a mean over users may be off by chance: the bootstrap, with users as what is drawn.

One resampling serves all columns of a matrix, so that a difference of two columns is a paired bootstrap.
Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, percentile intervals.
"""

from dataclasses import dataclass

import numpy as np

SAMPLES, LEVEL, SEED = 2000, 0.95, 1


@dataclass(frozen=True)
class Interval:
    """A mean and the percentile interval, of LEVEL, that it lies in."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"mean": round(self.mean, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


def resampled_means(values: np.ndarray, samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """The means of `values`, float64 (users, columns), over users drawn with replacement.

    float64 (samples, columns); the same for the same seed and number of users.
    """
    rng = np.random.default_rng(seed)
    users = len(values)
    means = np.empty((samples, values.shape[1]))
    for sample in range(samples):
        means[sample] = np.bincount(rng.integers(users, size=users), minlength=users) @ values
    return means / users


def interval(mean: float, resampled: np.ndarray) -> Interval:
    """Of a statistic and its resampled values, float64 (samples,)."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(mean), float(low), float(high))


def intervals(values: np.ndarray) -> list[Interval]:
    """Of the mean of each column of `values`, float64 (users, columns)."""
    means = resampled_means(values)
    return [interval(mean, means[:, column]) for column, mean in enumerate(values.mean(axis=0))]

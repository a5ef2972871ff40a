"""Bootstrap confidence intervals of means over users.

Users are resampled. All columns of a matrix share the resamples, so the interval of a difference of two
columns comes from a paired bootstrap.
Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, percentile intervals.
"""

from dataclasses import dataclass

import numpy as np

SAMPLES, LEVEL, SEED = 2000, 0.95, 1


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap confidence interval at LEVEL."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return `mean`, `low` and `high`, rounded to six decimals, for JSON."""
        return {"mean": round(self.mean, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


def resampled_means(values: np.ndarray, samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """Return the column means of `values`, float64 (users, columns), over users drawn with replacement.

    The result is float64 (samples, columns). The same seed and number of users draw the same users.
    """
    rng = np.random.default_rng(seed)
    users = len(values)
    means = np.empty((samples, values.shape[1]))
    for sample in range(samples):
        means[sample] = np.bincount(rng.integers(users, size=users), minlength=users) @ values
    return means / users


def interval(mean: float, resampled: np.ndarray) -> Interval:
    """Return the confidence interval of a statistic from its resampled values, float64 (samples,)."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(mean), float(low), float(high))


def intervals(values: np.ndarray) -> list[Interval]:
    """Return the confidence interval of the mean of each column of `values`, float64 (users, columns)."""
    means = resampled_means(values)
    return [interval(mean, means[:, column]) for column, mean in enumerate(values.mean(axis=0))]

"""The slope of a process's memory over time, and how well the samples tell it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

HOUR_S = 3600.0
Z = 1.96
"""Half the width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Slope:
    """Megabytes per hour, with the half-width of its 95 % interval."""

    mb_per_h: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mb_per_h - self.half_width


def slope(lives: Iterable[tuple[np.ndarray, np.ndarray]]) -> Slope | None:
    """Return the common slope of `lives`, None if there are too few samples.

    Each life is one process: its samples' times in seconds and its memory in MB. A restarted process starts
    at a level of its own, so only the slope within each life counts. Memory changes in steps, so that
    neighbouring samples tell less than independent ones would: the interval counts as many samples as their
    correlation leaves, n (1 - r) / (1 + r) for a correlation r of neighbours.
    """
    kept = [(time, memory) for time, memory in lives if len(time) > 2]
    if not kept:
        return None
    time, memory = (
        np.concatenate([values - values.mean() for values in column]) for column in zip(*kept, strict=True)
    )
    spread = float(time @ time)
    per_s = float(time @ memory) / spread
    residuals = memory - per_s * time
    variance = float(residuals @ residuals)
    r = float(residuals[1:] @ residuals[:-1]) / variance if variance else 0.0
    r = min(max(r, 0.0), 0.999)
    independent = max(len(time) * (1 - r) / (1 + r) - len(kept) - 1, 1.0)
    error = np.sqrt(variance / independent / spread)
    return Slope(per_s * HOUR_S, float(Z * error * HOUR_S))

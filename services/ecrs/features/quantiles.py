"""Quantiles of the ranker's features, and the columns of its input."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ecrs.features.encoding import PAIR_COLUMNS, Encoder
from ecrs.features.ranking import FEATURES

LEVELS = 256
"""Number of levels of a feature in the ranker's input: 0 for a missing number, 1 to 255 for its quantile."""

RANKER_COLUMNS = (*PAIR_COLUMNS, *FEATURES)
"""Columns of the ranker's input."""


def ranker_cardinality(encoder: Encoder) -> tuple[int, ...]:
    """Return the exclusive upper bound of the ids in each of RANKER_COLUMNS."""
    return encoder.cardinality(PAIR_COLUMNS) + (LEVELS,) * len(FEATURES)


@dataclass(frozen=True)
class Quantiles:
    """Turns FEATURES into levels, to spare the model long tails, shifts of scale and missing numbers.

    `edges`: for each of FEATURES, the distinct inner quantiles of its values in training, ascending.
    """

    edges: Sequence[np.ndarray]

    @classmethod
    def fit(cls, features: np.ndarray) -> "Quantiles":
        """Compute the quantiles of a sample: float32, shape (N, len(FEATURES)), NaN for missing numbers."""
        inner = np.linspace(0, 1, LEVELS)[1:-1]
        columns = (column[~np.isnan(column)] for column in features.T)
        return cls(
            [np.unique(np.quantile(column, inner)) if len(column) else inner[:1] for column in columns]
        )

    @classmethod
    def load(cls, path: Path) -> "Quantiles":
        """Read the edges from `quantiles.json`."""
        return cls.of(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, edges: Mapping[str, Sequence[float]]) -> "Quantiles":
        """Return the quantiles with these edges, by feature.

        Raises ValueError unless each of FEATURES has 1 to LEVELS - 2 edges, ascending.
        """
        quantiles = cls([np.array(edges.get(name, ()), dtype=np.float64) for name in FEATURES])
        for name, values in zip(FEATURES, quantiles.edges, strict=True):
            if not 1 <= len(values) <= LEVELS - 2:
                raise ValueError(f"{name}: {len(values)} edges, expected 1 to {LEVELS - 2}")
            if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
                raise ValueError(f"{name}: the edges do not ascend")
        return quantiles

    def save(self, path: Path) -> None:
        """Write the edges as a JSON object by feature name."""
        edges = {name: values.tolist() for name, values in zip(FEATURES, self.edges, strict=True)}
        path.write_text(json.dumps(edges), encoding="utf-8")

    def levels(self, features: np.ndarray) -> np.ndarray:
        """Return the level of each number of `features`: int64, of the same shape.

        A feature with few distinct values has them spread over all levels.
        """
        values = np.ascontiguousarray(features.T, dtype=np.float64)
        positions = np.empty(values.shape, dtype=np.int64)
        for column, edges in enumerate(self.edges):
            positions[column] = edges.searchsorted(values[column], side="right")
        positions[np.isnan(values)] = LEVELS - 1  # no feature has that many edges
        return np.take_along_axis(self._levels, positions, axis=1).T

    @cached_property
    def _levels(self) -> np.ndarray:
        """Level of each position among a feature's edges: int64, shape (len(FEATURES), LEVELS).

        The last position stands for a missing number; its level is 0.
        """
        levels = np.zeros((len(self.edges), LEVELS), dtype=np.int64)
        position = np.arange(LEVELS - 1)
        for column, edges in enumerate(self.edges):
            levels[column, :-1] = 1 + (position * (LEVELS - 2) + len(edges) // 2) // len(edges)
        return levels

"""TODO ecrs.features.quantiles."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ecrs.features.encoding import PAIR_COLUMNS, Encoder
from ecrs.features.ranking import FEATURES

LEVELS = 256
"""Levels of a feature as the model sees it: 0 for "no such number", then its quantile, 1 to 255."""

RANKER_COLUMNS = (*PAIR_COLUMNS, *FEATURES)


def ranker_cardinality(encoder: Encoder) -> tuple[int, ...]:
    """The exclusive upper bound of each of RANKER_COLUMNS."""
    return encoder.cardinality(PAIR_COLUMNS) + (LEVELS,) * len(FEATURES)


@dataclass(frozen=True)
class Quantiles:
    """Turns FEATURES into levels, so that a long tail, a shift of scale or a missing number is nothing
    the model must cope with.

    `edges`: for each of FEATURES, ascending, the distinct inner quantiles of what was seen in training.
    """

    edges: Sequence[np.ndarray]

    @classmethod
    def fit(cls, features: np.ndarray) -> "Quantiles":
        """Of a sample, float32 (N, FEATURES)."""
        inner = np.linspace(0, 1, LEVELS)[1:-1]
        columns = (column[~np.isnan(column)] for column in features.T)
        return cls(
            [np.unique(np.quantile(column, inner)) if len(column) else inner[:1] for column in columns]
        )

    @classmethod
    def load(cls, path: Path) -> "Quantiles":
        edges = json.loads(path.read_text(encoding="utf-8"))
        return cls([np.array(edges[name], dtype=np.float64) for name in FEATURES])

    def save(self, path: Path) -> None:
        edges = {name: of.tolist() for name, of in zip(FEATURES, self.edges, strict=True)}
        path.write_text(json.dumps(edges), encoding="utf-8")

    def levels(self, features: np.ndarray) -> np.ndarray:
        """int64, shape and order of `features`; a feature of few values spreads them over all levels."""
        values = np.ascontiguousarray(features.T, dtype=np.float64)
        places = np.empty(values.shape, dtype=np.int64)
        for column, edges in enumerate(self.edges):
            places[column] = edges.searchsorted(values[column], side="right")
        places[np.isnan(values)] = LEVELS - 1  # more than a column has edges
        return np.take_along_axis(self._levels, places, axis=1).T

    @cached_property
    def _levels(self) -> np.ndarray:
        """Of each place among the edges the level, int64 (FEATURES, LEVELS); of the last, 0."""
        levels = np.zeros((len(self.edges), LEVELS), dtype=np.int64)
        place = np.arange(LEVELS - 1)
        for column, edges in enumerate(self.edges):
            levels[column, :-1] = 1 + (place * (LEVELS - 2) + len(edges) // 2) // len(edges)
        return levels

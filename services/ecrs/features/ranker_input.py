"""The ranker's input: one row of ids for each candidate of a user. Pure functions, without I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.domain.aggregates import Aggregates
from ecrs.domain.entities import Item, User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.catalogue import NO_ID, Catalogue, known_ids
from ecrs.features.encoding import Encoder
from ecrs.features.quantiles import Quantiles
from ecrs.features.ranking import CHANNELS, EncodedAggregates, EncodedCandidates, ranking_features


@dataclass(frozen=True)
class EncodedItems:
    """Encoded item records, which do not depend on the user.

    `row`: int64, shape (N,), rows of the catalogue, NO_ID for unknown items. `ids`: int64, shape
    (N, len(ITEM_FIELDS)), vocabulary ids.
    """

    row: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class RankerInputBuilder:
    """Builds the ranker's input for requests, with the tables of one bundle.

    `statistics`: float32, shape (items, len(STATISTICS)), in the order of the catalogue, NaN for items that
    were never sold.
    """

    encoder: Encoder
    catalogue: Catalogue
    quantiles: Quantiles
    statistics: np.ndarray

    def items(self, items: Sequence[Item]) -> EncodedItems:
        """Encode item records."""
        return EncodedItems(self.catalogue.rows(item.sku for item in items), self.encoder.items(items))

    def ids(self, user: User, items: EncodedItems, provenance: ProvenanceTable, now: int) -> np.ndarray:
        """Return the ranker's input for N items: int64, shape (N, len(RANKER_COLUMNS)).

        `provenance` has a row for each item; `now` is in Unix seconds.
        """
        selected = provenance.select(CHANNELS)
        positions = np.where(selected.positions > 0, selected.positions, np.nan)
        candidates = EncodedCandidates(
            items.row, known_ids(items.ids[:, 1:]), self._statistics(items.row), positions, selected.scores
        )
        levels = self.quantiles.levels(ranking_features(self.past(user.aggregates), candidates, now))
        user_ids = np.array(self.encoder.user_row(user))
        return ranker_matrix(np.broadcast_to(user_ids, (len(levels), len(user_ids))), items.ids, levels)

    def past(self, aggregates: Aggregates) -> EncodedAggregates:
        """Encode a user's aggregates."""
        rows = self.catalogue.rows(aggregates.skus)
        return EncodedAggregates(rows, self.catalogue.groups[rows], aggregates.numbers)

    def _statistics(self, rows: np.ndarray) -> np.ndarray:
        """Return the statistics of the items at `rows`: float32, (N, len(STATISTICS)), NaN for NO_ID."""
        statistics = self.statistics[rows]
        statistics[rows == NO_ID] = np.nan
        return statistics


def ranker_matrix(users: np.ndarray, items: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Join the parts of the ranker's input: int64, shape (N, len(RANKER_COLUMNS)).

    `users`, (N, 1 + len(PROFILE_FIELDS)), and `items`, (N, len(ITEM_FIELDS)), are vocabulary ids; `levels`,
    (N, len(FEATURES)), are those of `Quantiles`. Serving, training and evaluation all build the input here.
    """
    return np.concatenate([users, items, levels], axis=1, dtype=np.int64)

"""The ranker's input: one row of ids for each candidate of a user. No I/O."""

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
    """Items by number, the same for every user.

    `row`, int64 (N,), in the catalogue, NO_ID if unknown; `ids`, int64 (N, ITEM_FIELDS), of the vocabularies.
    """

    row: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class RankerInputBuilder:
    """Builds the ranker's input from requests, with the tables of one bundle.

    `statistics`: float32, shape (items, len(STATISTICS)), rows of the catalogue, NaN for items never sold.
    """

    encoder: Encoder
    catalogue: Catalogue
    quantiles: Quantiles
    statistics: np.ndarray

    def items(self, items: Sequence[Item]) -> EncodedItems:
        """Encode item records."""
        return EncodedItems(self.catalogue.rows(item.sku for item in items), self.encoder.items(items))

    def ids(self, user: User, items: EncodedItems, provenance: ProvenanceTable, now: int) -> np.ndarray:
        """The model's input, int64, shape (N, len(RANKER_COLUMNS))."""
        known = provenance.select(CHANNELS)
        positions = np.where(known.positions > 0, known.positions, np.nan)
        candidates = EncodedCandidates(
            items.row, known_ids(items.ids[:, 1:]), self._statistics(items.row), positions, known.scores
        )
        levels = self.quantiles.levels(ranking_features(self.past(user.aggregates), candidates, now))
        user_ids = np.array(self.encoder.user_row(user))
        return ranker_matrix(np.broadcast_to(user_ids, (len(levels), len(user_ids))), items.ids, levels)

    def past(self, aggregates: Aggregates) -> EncodedAggregates:
        """Encode a user's aggregates."""
        rows = self.catalogue.rows(aggregates.skus)
        return EncodedAggregates(rows, self.catalogue.groups[rows], aggregates.numbers)

    def _statistics(self, rows: np.ndarray) -> np.ndarray:
        """Statistics of the items at `rows`, float32, shape (N, len(STATISTICS)); NaN where NO_ID."""
        statistics = self.statistics[rows]
        statistics[rows == NO_ID] = np.nan
        return statistics


def ranker_matrix(users: np.ndarray, items: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The ranker's input, int64 (N, RANKER_COLUMNS): serving, training and evaluation build it here.

    `users`, (N, 1 + PROFILE_FIELDS), and `items`, (N, ITEM_FIELDS), ids of vocabularies; `levels`,
    (N, FEATURES).
    """
    return np.concatenate([users, items, levels], axis=1, dtype=np.int64)

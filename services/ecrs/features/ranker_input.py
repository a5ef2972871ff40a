"""A user and candidates as the ranker's input. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.domain.aggregates import Aggregates
from ecrs.domain.entities import ITEM_FIELDS, Item, User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.catalogue import Catalogue, known_ids
from ecrs.features.encoding import Encoder
from ecrs.features.quantiles import Quantiles
from ecrs.features.ranking import CHANNELS, STATISTICS, EncodedAggregates, EncodedCandidates, ranking_features
from ecrs.rpc.errors import BadRequest


@dataclass(frozen=True)
class EncodedItems:
    """Products as the ranker knows them, whoever asks: `row`, int64 (N,), in the catalogue; `ids`, int64
    (N, ITEM_FIELDS); `statistics`, float32 (N, STATISTICS), NaN where there is none."""

    row: np.ndarray
    ids: np.ndarray
    statistics: np.ndarray

    @classmethod
    def room(cls, n: int) -> "EncodedItems":
        """For `n`, to be written to."""
        return cls(
            np.empty(n, dtype=np.int64),
            np.empty((n, len(ITEM_FIELDS)), dtype=np.int64),
            np.empty((n, len(STATISTICS)), dtype=np.float32),
        )

    def write(self, places: Sequence[int], records: "EncodedItems") -> None:
        self.row[places], self.ids[places] = records.row, records.ids
        self.statistics[places] = records.statistics

    def at(self, places: Sequence[int]) -> "EncodedItems":
        return EncodedItems(self.row[places], self.ids[places], self.statistics[places])


@dataclass(frozen=True)
class RankerInputBuilder:
    """What turns requests into ids, of one bundle."""

    encoder: Encoder
    catalogue: Catalogue
    quantiles: Quantiles

    def records(self, items: Sequence[Item]) -> EncodedItems:
        """BadRequest for an item whose statistics are not as many as there should be."""
        rows = self.catalogue.rows(item.sku for item in items)
        return EncodedItems(rows, self.encoder.items(items), _statistics(items))

    def ids(self, user: User, records: EncodedItems, provenance: ProvenanceTable, now: int) -> np.ndarray:
        """The model's input, int64, shape (N, RANKER_COLUMNS)."""
        said = provenance.select(CHANNELS)
        positions = np.where(said.positions > 0, said.positions, np.nan)
        candidates = EncodedCandidates(
            records.row, known_ids(records.ids[:, 1:]), records.statistics, positions, said.scores
        )
        levels = self.quantiles.levels(ranking_features(self.past(user.aggregates), candidates, now))
        who = np.array(self.encoder.user_row(user))
        return ranker_matrix(np.broadcast_to(who, (len(levels), len(who))), records.ids, levels)

    def past(self, aggregates: Aggregates) -> EncodedAggregates:
        rows = self.catalogue.rows(aggregates.skus)
        return EncodedAggregates(rows, self.catalogue.groups[rows], aggregates.numbers)


def _statistics(items: Sequence[Item]) -> np.ndarray:
    """float32 (N, STATISTICS), NaN for items that bring none."""
    none = (np.nan,) * len(STATISTICS)
    wrong = next((item for item in items if len(item.statistics) not in (0, len(none))), None)
    if wrong is not None:
        found = len(wrong.statistics)
        raise BadRequest(f"item_infos: {wrong.sku!r} has {found} statistics, expected {len(none)}")
    return np.array([item.statistics or none for item in items], dtype=np.float32)


def ranker_matrix(users: np.ndarray, items: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The ranker's input, int64 (N, RANKER_COLUMNS): serving, training and evaluation build it here.

    `users`, (N, 1 + PROFILE_FIELDS), and `items`, (N, ITEM_FIELDS), ids of vocabularies; `levels`,
    (N, FEATURES).
    """
    return np.concatenate([users, items, levels], axis=1, dtype=np.int64)

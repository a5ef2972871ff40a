"""A snapshot: everything the platform knows at a cutoff time, and the candidates that retrieval would return.

Training uses past snapshots, evaluation the one at the end of training, export the one at the end of the
data. All of them use the classes that serving uses.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import faiss
import numpy as np

from ecrs.domain.entities import User
from ecrs.features.catalogue import Catalogue
from ecrs.features.encoding import PADDING, Encoder
from ecrs.features.ranking import CHANNELS, EncodedAggregates, EncodedCandidates, ranking_features
from ecrs.recall.blending import DEPTH, BlendedCandidates, CandidateGenerator
from ecrs.recall.channels import Interest, ScoredItems, SimilarItems
from ecrs.recall.tables import popular_channel
from ecrs_models.data.dataset import Dataset
from ecrs_models.data.log import Log
from ecrs_models.snapshots.aggregates import AggregatesByUser, aggregate_by_user
from ecrs_models.snapshots.item_statistics import item_statistics, popular_counts
from ecrs_models.snapshots.similar_items import similar_items


@dataclass(frozen=True)
class ChannelSettings:
    """Settings of the retrieval channels' tables.

    `popular_days`: number of days whose sales count as recent; `similar_items`: number of items that have
    neighbours, those with the most buyers; `similar_ridge`: regularisation as a share of the number of users;
    `neighbours`: number of neighbours per item.
    """

    popular_days: int = 14
    similar_items: int = 6000
    similar_ridge: float = 0.25
    neighbours: int = 50


NO_CURVES = np.zeros((len(CHANNELS), DEPTH), dtype=np.float32)
"""Placeholder for the position-precision curves where they are not yet known."""


@dataclass(frozen=True)
class EncodedTables:
    """The data set's tables as vocabulary ids.

    `users`: `Encoder.user_table`; `items`: `Encoder.item_table`; `unknown_user`, int64 (1 +
    PROFILE_FIELDS,): the row of a user about whom nothing is known.
    """

    users: np.ndarray
    items: np.ndarray
    catalogue: Catalogue
    unknown_user: np.ndarray

    @classmethod
    def of(cls, data: Dataset, encoder: Encoder) -> "EncodedTables":
        """Encode the tables of a data set."""
        items = encoder.item_table(data.items.to_dict())
        catalogue = Catalogue.of(data.items["sku"].to_list(), items)
        unknown_user = np.array(encoder.user_row(User()))
        return cls(encoder.user_table(data.users.to_dict()), items, catalogue, unknown_user)


@dataclass(frozen=True)
class Snapshot:
    """Everything the platform knows at `cutoff`, Unix seconds.

    `log`: the actions before the cutoff; `aggregates`, `statistics` and `generator` are computed from it.
    """

    cutoff: int
    log: Log
    tables: EncodedTables
    aggregates: AggregatesByUser
    statistics: np.ndarray
    generator: CandidateGenerator

    @classmethod
    def of(
        cls,
        log: Log,
        cutoff: int,
        tables: EncodedTables,
        settings: ChannelSettings,
        curves: np.ndarray = NO_CURVES,
    ) -> "Snapshot":
        """Compute the snapshot at `cutoff`. Later actions in `log` are ignored."""
        log, items = log.before(cutoff), len(tables.catalogue)
        counts = popular_counts(log, items, cutoff, settings.popular_days)
        popular = popular_channel(tables.catalogue, counts / max(counts.sum(), 1))
        similar = similar_items(
            log,
            items,
            most=settings.similar_items,
            ridge=settings.similar_ridge,
            neighbours=settings.neighbours,
        )
        generator = CandidateGenerator(tables.catalogue, SimilarItems(*similar), popular, curves)
        return cls(
            cutoff, log, tables, aggregate_by_user(log, items), item_statistics(log, items, cutoff), generator
        )

    def with_curves(self, curves: np.ndarray) -> "Snapshot":
        """Return a copy that blends by other position-precision curves, float32 (CHANNELS, DEPTH)."""
        return replace(self, generator=replace(self.generator, curves=curves))

    @cached_property
    def sold(self) -> np.ndarray:
        """True for items that were bought before the cutoff: bool (items,)."""
        sold = np.zeros(len(self.tables.catalogue), dtype=bool)
        sold[self.log.item[self.log.positive_rows()]] = True
        return sold

    def user_tower_input(self, users: np.ndarray) -> np.ndarray:
        """Return the user tower input of the given users, int64 (N, USER_TOWER_COLUMNS)."""
        sku_ids = np.append(self.tables.items[:, 0], PADDING)  # so that index -1, ABSENT, yields PADDING
        return np.concatenate([self.tables.users[users], sku_ids[self.log.latest(users)]], axis=1)

    def encoded_aggregates(self, user: int) -> EncodedAggregates:
        """Return the aggregates of one user, with the items' brands, shops and categories."""
        item, numbers = self.aggregates.of(user)
        item = item.astype(np.int64)
        return EncodedAggregates(item, self.tables.catalogue.groups[item], numbers)

    def blend(
        self, past: EncodedAggregates, vector: ScoredItems, n: int, *, new_only: bool = False
    ) -> BlendedCandidates:
        """Blend the candidates of all channels for a user with aggregates `past`, as retrieval does.

        `vector` holds the results of the vector channel. Returns at most `n` candidates. With `new_only`,
        items that the user bought before are left out.
        """
        interest = Interest.of(past.item, past.numbers, self.cutoff)
        context = self.generator.user_context(interest, past.item, new_only=new_only)
        return self.generator.blend(context, vector, n)

    def features(self, past: EncodedAggregates, candidates: BlendedCandidates) -> np.ndarray:
        """Compute `ranking_features` of the candidates, float32 (N, FEATURES)."""
        item = candidates.item
        groups = self.tables.catalogue.groups[item]
        encoded = EncodedCandidates(
            item, groups, self.statistics[item], candidates.positions, candidates.scores
        )
        return ranking_features(past, encoded, self.cutoff)


class NearestItems:
    """The vector channel: exact nearest-neighbour search with faiss over `allowed`, bool (items,)."""

    def __init__(self, vectors: np.ndarray, allowed: np.ndarray) -> None:
        self._item = np.flatnonzero(allowed)
        self._index = faiss.IndexFlatL2(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors[self._item]))

    def __call__(self, user_vectors: np.ndarray, n: int = DEPTH) -> list[ScoredItems]:
        """Return the `n` nearest items of each user vector with their squared distances, nearest first."""
        distances, rows = self._index.search(np.ascontiguousarray(user_vectors), min(n, len(self._item)))
        return [ScoredItems(self._item[row], distance) for row, distance in zip(rows, distances, strict=True)]

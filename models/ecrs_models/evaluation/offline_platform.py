"""Retrieval, blending and ranking for many users of one snapshot, by the code that serves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ecrs.domain.entities import PROFILE_FIELDS
from ecrs.domain.sizes import CANDIDATES
from ecrs.features.quantiles import Quantiles
from ecrs.features.ranker_input import ranker_matrix
from ecrs.features.ranking import EncodedAggregates
from ecrs.recall.blending import BlendedCandidates
from ecrs.recall.channels import ScoredItems
from ecrs_models.snapshots.new_users import new_user_rows, session_aggregates
from ecrs_models.snapshots.snapshot import NearestItems, Snapshot

BATCH = 64
"""Users whose candidates are ranked in one call."""

Score = Callable[[np.ndarray], np.ndarray]
"""A model: ids, int64 (N, columns) → float32 (N, width)."""

_PROFILE = 1 + len(PROFILE_FIELDS)
"""Columns of the user id and the profile."""


@dataclass(frozen=True)
class BundleModels:
    """The models and tables of a bundle; `vectors`, float32 (items, DIM), are the item vectors."""

    user_tower: Score
    vectors: np.ndarray
    ranker: Score
    quantiles: Quantiles
    curves: np.ndarray


@dataclass(frozen=True)
class OfflineAnswer:
    """What the platform finds for one user.

    `candidates`, those ranked, in retrieval order, with `scores`, float32 (N,); `retrieved`, everything that
    the channels found, of which the candidates are the first.
    """

    candidates: BlendedCandidates
    scores: np.ndarray
    retrieved: BlendedCandidates

    @property
    def ranked(self) -> np.ndarray:
        """Items by descending score, int64 (N,)."""
        return self.candidates.item[np.argsort(-self.scores, kind="stable")]


@dataclass(frozen=True)
class _Request:
    """A user: `profile`, int64, the ids of user id and profile; `nearest`, from the vector channel."""

    profile: np.ndarray
    aggregates: EncodedAggregates
    nearest: ScoredItems


class OfflinePlatform:
    """The platform as of a snapshot."""

    def __init__(self, snapshot: Snapshot, models: BundleModels, candidates: int = CANDIDATES) -> None:
        self._snapshot = snapshot.with_curves(models.curves)
        self._models, self._candidates = models, candidates
        self._nearest = NearestItems(models.vectors, snapshot.sold)

    def user_vectors(self, users: np.ndarray) -> np.ndarray:
        """User tower outputs, float32 (N, DIM)."""
        return self._models.user_tower(self._snapshot.user_tower_input(users))

    def answers(self, users: np.ndarray, *, new_only: bool = False) -> Iterator[OfflineAnswer]:
        """The answer for each user, by number, in order."""
        profiles = self._snapshot.tables.users[users]
        aggregates = map(self._snapshot.encoded_aggregates, users.tolist())
        nearest = self._nearest(self.user_vectors(users))
        return self._ranked(map(_Request, profiles, aggregates, nearest), new_only=new_only)

    def answers_as_new(self, users: np.ndarray, *, session: bool, profile: bool) -> Iterator[OfflineAnswer]:
        """As `answers`, if the users were new, known by a short session, their profile, or both."""
        shown = np.full(len(users), session)
        rows = new_user_rows(self._snapshot, users, shown)
        if not profile:
            rows[:, :_PROFILE] = self._snapshot.tables.unknown_user
        aggregates = session_aggregates(self._snapshot, users, shown)
        nearest = self._nearest(self._models.user_tower(rows))
        return self._ranked(map(_Request, rows[:, :_PROFILE], aggregates, nearest), new_only=False)

    def _ranked(self, requests: Iterable[_Request], *, new_only: bool) -> Iterator[OfflineAnswer]:
        requests = iter(requests)
        while batch := list(islice(requests, BATCH)):
            everything = len(self._models.vectors)
            retrieved = [
                self._snapshot.blend(one.aggregates, one.nearest, everything, new_only=new_only)
                for one in batch
            ]
            candidates = [found.first(self._candidates) for found in retrieved]
            scores = self._scores(batch, candidates)
            yield from map(OfflineAnswer, candidates, scores, retrieved)

    def _scores(self, batch: Sequence[_Request], candidates: Sequence[BlendedCandidates]) -> list[np.ndarray]:
        """The ranker's scores of each request's candidates, from one call."""
        counts = [len(found.item) for found in candidates]
        features = map(self._snapshot.features, (one.aggregates for one in batch), candidates)
        levels = self._models.quantiles.levels(np.concatenate(list(features)))
        users = np.repeat(np.stack([one.profile for one in batch]), counts, axis=0)
        items = self._snapshot.tables.items[np.concatenate([found.item for found in candidates])]
        scores = self._models.ranker(ranker_matrix(users, items, levels))[:, 0]
        return np.split(scores, np.cumsum(counts)[:-1])

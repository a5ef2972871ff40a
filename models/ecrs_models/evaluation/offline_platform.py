"""Retrieval, blending and ranking for many users at one snapshot, with the code that serving uses."""

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
"""Number of users whose candidates are scored in one call of the ranker."""

Score = Callable[[np.ndarray], np.ndarray]
"""A model: maps ids, int64 (N, columns), to float32 (N, width)."""

_PROFILE = 1 + len(PROFILE_FIELDS)
"""Number of columns for the user id and the profile."""


@dataclass(frozen=True)
class BundleModels:
    """The models and tables of a bundle.

    `vectors`, float32 (items, DIM): item vectors; `curves`, float32 (CHANNELS, DEPTH): position-precision
    curves.
    """

    user_tower: Score
    vectors: np.ndarray
    ranker: Score
    quantiles: Quantiles
    curves: np.ndarray


@dataclass(frozen=True)
class OfflineAnswer:
    """The platform's answer for one user.

    `candidates`: the candidates that the ranker scored, in retrieval order; `scores`, float32 (N,): their
    scores; `retrieved`: everything that the channels retrieved, beginning with the candidates.
    """

    candidates: BlendedCandidates
    scores: np.ndarray
    retrieved: BlendedCandidates

    @property
    def ranked(self) -> np.ndarray:
        """The candidates by descending score: item rows, int64 (N,)."""
        return self.candidates.item[np.argsort(-self.scores, kind="stable")]


@dataclass(frozen=True)
class _Request:
    """What the platform knows about one user.

    `profile`, int64: vocabulary ids of the user id and the profile; `nearest`: results of the vector channel.
    """

    profile: np.ndarray
    aggregates: EncodedAggregates
    nearest: ScoredItems


class OfflinePlatform:
    """Answers requests as the platform would at the cutoff of a snapshot."""

    def __init__(self, snapshot: Snapshot, models: BundleModels, candidates: int = CANDIDATES) -> None:
        self._snapshot = snapshot.with_curves(models.curves)
        self._models, self._candidates = models, candidates
        self._nearest = NearestItems(models.vectors, snapshot.sold)

    def user_vectors(self, users: np.ndarray) -> np.ndarray:
        """Return the user tower outputs of the given users, float32 (N, DIM)."""
        return self._models.user_tower(self._snapshot.user_tower_input(users))

    def answers(self, users: np.ndarray, *, new_only: bool = False) -> Iterator[OfflineAnswer]:
        """Yield the answer for each of `users`, rows of the users' table, in order."""
        profiles = self._snapshot.tables.users[users]
        aggregates = map(self._snapshot.encoded_aggregates, users.tolist())
        nearest = self._nearest(self.user_vectors(users))
        return self._ranked(map(_Request, profiles, aggregates, nearest), new_only=new_only)

    def answers_as_new(self, users: np.ndarray, *, session: bool, profile: bool) -> Iterator[OfflineAnswer]:
        """Like `answers`, with the users treated as new: a short session, the profile, or both are known."""
        has_session = np.full(len(users), session)
        rows = new_user_rows(self._snapshot, users, has_session)
        if not profile:
            rows[:, :_PROFILE] = self._snapshot.tables.unknown_user
        aggregates = session_aggregates(self._snapshot, users, has_session)
        nearest = self._nearest(self._models.user_tower(rows))
        return self._ranked(map(_Request, rows[:, :_PROFILE], aggregates, nearest), new_only=False)

    def _ranked(self, requests: Iterable[_Request], *, new_only: bool) -> Iterator[OfflineAnswer]:
        requests = iter(requests)
        while batch := list(islice(requests, BATCH)):
            everything = len(self._models.vectors)
            retrieved = [
                self._snapshot.blend(request.aggregates, request.nearest, everything, new_only=new_only)
                for request in batch
            ]
            candidates = [blended.first(self._candidates) for blended in retrieved]
            scores = self._scores(batch, candidates)
            yield from map(OfflineAnswer, candidates, scores, retrieved)

    def _scores(self, batch: Sequence[_Request], candidates: Sequence[BlendedCandidates]) -> list[np.ndarray]:
        """Score the candidates of all requests in one call of the ranker."""
        counts = [len(blended.item) for blended in candidates]
        features = map(self._snapshot.features, (request.aggregates for request in batch), candidates)
        levels = self._models.quantiles.levels(np.concatenate(list(features)))
        users = np.repeat(np.stack([request.profile for request in batch]), counts, axis=0)
        items = self._snapshot.tables.items[np.concatenate([blended.item for blended in candidates])]
        scores = self._models.ranker(ranker_matrix(users, items, levels))[:, 0]
        return np.split(scores, np.cumsum(counts)[:-1])

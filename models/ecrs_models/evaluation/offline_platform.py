"""Recall, merge and rank in this process, for many users of one snapshot, by the classes that serve."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ecrs.domain.entities import PROFILE_FIELDS
from ecrs.features.quantiles import Quantiles
from ecrs.features.ranking import EncodedAggregates
from ecrs.recall.blending import BlendedCandidates
from ecrs.recall.channels import ScoredItems
from ecrs_models.snapshots.new_users import new_user_rows, session_aggregates
from ecrs_models.snapshots.snapshot import NearestItems, Snapshot

CANDIDATES = 500
"""How many candidates the ranker sees."""

Score = Callable[[np.ndarray], np.ndarray]
"""A model: ids, int64 (N, columns) → float32 (N, width)."""


@dataclass(frozen=True)
class BundleModels:
    """What a bundle serves with; `vectors`, float32 (items, dim), of the data set's products."""

    user_tower: Score
    vectors: np.ndarray
    ranker: Score
    quantiles: Quantiles
    curves: np.ndarray


@dataclass(frozen=True)
class OfflineAnswer:
    """One user's candidates as recall merged them, and the ranker's score of each, float32 (N,); `found`,
    all that the channels found, of which the candidates are the first."""

    proposals: BlendedCandidates
    scores: np.ndarray
    found: BlendedCandidates

    @property
    def ranked(self) -> np.ndarray:
        """Items, best first; int64 (N,)."""
        return self.proposals.item[np.argsort(-self.scores, kind="stable")]


class OfflinePlatform:
    """The platform at a snapshot. `users`: who will be asked for, so that their vectors are found at once."""

    def __init__(
        self, snapshot: Snapshot, models: BundleModels, users: np.ndarray, candidates: int = CANDIDATES
    ) -> None:
        self._snapshot = snapshot.with_curves(models.curves)
        self._models, self._candidates = models, candidates
        self._nearest = NearestItems(models.vectors, snapshot.sold)
        self.users = users
        self.vectors = models.user_tower(snapshot.user_tower_input(users))
        self.vector: dict[int, ScoredItems] = dict(
            zip(users.tolist(), self._nearest(self.vectors), strict=True)
        )

    def answer(self, user: int, *, new_only: bool = False) -> OfflineAnswer:
        profile = self._snapshot.tables.users[user]
        return self._ranked(self._snapshot.encoded_aggregates(user), self.vector[user], profile, new_only)

    def as_new(self, *, session: bool, profile: bool) -> Iterator[tuple[int, OfflineAnswer]]:
        """Each user's answer if the user were new, known by a short session, the profile, or both."""
        shown = np.full(len(self.users), session)
        rows = new_user_rows(self._snapshot, self.users, shown)
        if not profile:
            rows[:, : 1 + len(PROFILE_FIELDS)] = self._snapshot.tables.unknown_user
        pasts = session_aggregates(self._snapshot, self.users, shown)
        found = self._nearest(self._models.user_tower(rows))
        for user, row, past, vector in zip(self.users.tolist(), rows, pasts, found, strict=True):
            yield user, self._ranked(past, vector, row[: 1 + len(PROFILE_FIELDS)], False)

    def _ranked(
        self, past: EncodedAggregates, vector: ScoredItems, profile: np.ndarray, new_only: bool
    ) -> OfflineAnswer:
        everything = self._snapshot.blend(past, vector, len(self._models.vectors), new_only=new_only)
        proposals = everything.first(self._candidates)
        features = self._snapshot.features(past, proposals)
        profiles = np.repeat(profile[None], len(proposals.item), axis=0)
        pairs = [profiles, self._snapshot.tables.items[proposals.item]]
        ids = np.concatenate([*pairs, self._models.quantiles.levels(features)], axis=1)
        return OfflineAnswer(proposals, self._models.ranker(ids)[:, 0], everything)

"""Recall, merge and rank in this process, for many users of one moment, by the classes that serve."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ecrs.domain import PROFILE_FIELDS
from ecrs.ranking_features import Past, Quantiles
from ecrs.recall.channels import Found
from ecrs.recall.proposals import Proposals
from ecrs_models.candidates import new_user_rows, session_pasts
from ecrs_models.moments import Moment, Nearest

CANDIDATES = 500
"""How many candidates the ranker sees."""

Score = Callable[[np.ndarray], np.ndarray]
"""A model: ids, int64 (N, columns) → float32 (N, width)."""


@dataclass(frozen=True)
class Models:
    """What a bundle serves with; `vectors`, float32 (items, dim), of the data set's products."""

    user_tower: Score
    vectors: np.ndarray
    ranker: Score
    quantiles: Quantiles
    curves: np.ndarray


@dataclass(frozen=True)
class Answer:
    """One user's candidates as recall merged them, and the ranker's score of each, float32 (N,); `found`,
    all that the channels found, of which the candidates are the first."""

    proposals: Proposals
    scores: np.ndarray
    found: Proposals

    @property
    def ranked(self) -> np.ndarray:
        """Items, best first; int64 (N,)."""
        return self.proposals.item[np.argsort(-self.scores, kind="stable")]


class Platform:
    """The platform at a moment. `users`: who will be asked for, so that their vectors are found at once."""

    def __init__(
        self, moment: Moment, models: Models, users: np.ndarray, candidates: int = CANDIDATES
    ) -> None:
        self._moment = moment.with_curves(models.curves)
        self._models, self._candidates = models, candidates
        self._nearest = Nearest(models.vectors, moment.sold)
        self.users = users
        self.vectors = models.user_tower(moment.tower_rows(users))
        self.vector: dict[int, Found] = dict(zip(users.tolist(), self._nearest(self.vectors), strict=True))

    def answer(self, user: int, *, new_only: bool = False) -> Answer:
        profile = self._moment.tables.users[user]
        return self._ranked(self._moment.past(user), self.vector[user], profile, new_only)

    def as_new(self, *, session: bool, profile: bool) -> Iterator[tuple[int, Answer]]:
        """Each user's answer if the user were new, known by a short session, the profile, or both."""
        shown = np.full(len(self.users), session)
        rows = new_user_rows(self._moment, self.users, shown)
        if not profile:
            rows[:, : 1 + len(PROFILE_FIELDS)] = self._moment.tables.stranger
        pasts = session_pasts(self._moment, self.users, shown)
        found = self._nearest(self._models.user_tower(rows))
        for user, row, past, vector in zip(self.users.tolist(), rows, pasts, found, strict=True):
            yield user, self._ranked(past, vector, row[: 1 + len(PROFILE_FIELDS)], False)

    def _ranked(self, past: Past, vector: Found, profile: np.ndarray, new_only: bool) -> Answer:
        everything = self._moment.propose(past, vector, len(self._models.vectors), new_only=new_only)
        proposals = everything.best(self._candidates)
        features = self._moment.features(past, proposals)
        profiles = np.repeat(profile[None], len(proposals.item), axis=0)
        pairs = [profiles, self._moment.tables.items[proposals.item]]
        ids = np.concatenate([*pairs, self._models.quantiles.levels(features)], axis=1)
        return Answer(proposals, self._models.ranker(ids)[:, 0], everything)

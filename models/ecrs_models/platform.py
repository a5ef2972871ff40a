"""Recall, merge and rank in this process, for many users of one moment, by the classes that serve."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ecrs.ranking_features import Quantiles
from ecrs.recall.channels import Found
from ecrs.recall.proposals import Proposals
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
    """One user's candidates as recall merged them, and the ranker's score of each, float32 (N,)."""

    proposals: Proposals
    scores: np.ndarray

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
        nearest = Nearest(models.vectors, moment.sold)
        found = nearest(models.user_tower(moment.tower_rows(users)))
        self.vector: dict[int, Found] = dict(zip(users.tolist(), found, strict=True))

    def answer(self, user: int, *, new_only: bool = False) -> Answer:
        past = self._moment.past(user)
        proposals = self._moment.propose(past, self.vector[user], self._candidates, new_only=new_only)
        features = self._moment.features(past, proposals)
        profile = np.repeat(self._moment.tables.users[[user]], len(proposals.item), axis=0)
        pairs = [profile, self._moment.tables.items[proposals.item]]
        ids = np.concatenate([*pairs, self._models.quantiles.levels(features)], axis=1)
        return Answer(proposals, self._models.ranker(ids)[:, 0])

"""What the ranker learns from: the candidates that recall returned at past moments, and who took which.

At each of several moments, weeks apart, the users are asked for as they would have been then: tables,
totals and candidates as of the moment, labels from the weeks after it. Some are asked for as if they were
new, with their profile alone or with a short session, so that the ranker has seen such users.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.domain import PROFILE_FIELDS
from ecrs.features import OUT_OF_VOCABULARY, PADDING
from ecrs.ranking_features import CHANNELS, Past, Quantiles
from ecrs.recall.channels import Found, Interest
from ecrs.recall.proposals import DEPTH
from ecrs_models.dataset import Log
from ecrs_models.moments import Moment, Nearest
from ecrs_models.tables import user_totals

SESSION_LENGTH = 5
"""Products of a new user's session."""
_QUANTILE_ROWS = 200_000
Vectors = Callable[[np.ndarray], np.ndarray]
"""User tower: ids, int64 (N, columns) → float32 (N, dim)."""


@dataclass(frozen=True)
class CandidateSettings:
    """`depth`: candidates a user; `users`: at most so many a moment; `negatives`: the share of what was not
    taken that is kept; `as_new`: the share of users who are asked for once more as new."""

    depth: int = 500
    users: int = 3000
    negatives: float = 0.3
    as_new: float = 0.1


@dataclass(frozen=True)
class Asked:
    """One user at one moment. `truth`, items taken in the weeks after; `known`: by id, not as new."""

    user: int
    past: Past
    vector: Found
    truth: np.ndarray
    known: bool


@dataclass(frozen=True)
class RankerRows:
    """What the ranker learns from, a row a candidate.

    `user`, `item`, int32 (N,), rows of the tables; `known`, bool (N,), False where the user is new;
    `levels`, uint8 (N, FEATURES); `taken`, bool (N,); `weight`, float32 (N,), of candidates that stand
    for those left out.
    """

    user: np.ndarray
    item: np.ndarray
    known: np.ndarray
    levels: np.ndarray
    taken: np.ndarray
    weight: np.ndarray


def asked_at(
    moment: Moment,
    later: Log,
    nearest: Nearest,
    user_vectors: Vectors,
    settings: CandidateSettings,
    rng: np.random.Generator,
) -> Iterator[Asked]:
    """The users of a moment who came back after it, some of them also as new."""
    came_back = np.flatnonzero((np.diff(moment.totals.start) > 0) & (np.diff(later.start) > 0))
    if len(came_back) > settings.users:
        came_back = np.sort(rng.choice(came_back, settings.users, replace=False))
    if not len(came_back):  # of a small shop there may be none, here and below
        return
    truth = {
        user: np.unique(later.item[later.start[user] : later.start[user + 1]]) for user in came_back.tolist()
    }
    found = nearest(user_vectors(moment.tower_rows(came_back)))
    for user, vector in zip(came_back.tolist(), found, strict=True):
        yield Asked(user, moment.past(user), vector, truth[user], known=True)
    as_new = came_back[rng.random(len(came_back)) < settings.as_new]
    if not len(as_new):
        return
    session = rng.random(len(as_new)) < 0.5
    rows = new_user_rows(moment, as_new, session)
    pasts = session_pasts(moment, as_new, session)
    for user, past, vector in zip(as_new.tolist(), pasts, nearest(user_vectors(rows)), strict=True):
        yield Asked(user, past, vector, truth[user], known=False)


def new_user_rows(moment: Moment, users: np.ndarray, session: np.ndarray) -> np.ndarray:
    """User tower input of users as if they were new: profile, and the newest few products in a session."""
    rows = moment.tower_rows(users)
    rows[:, 0] = OUT_OF_VOCABULARY
    rows[~session, 1 + len(PROFILE_FIELDS) :] = PADDING
    rows[:, 1 + len(PROFILE_FIELDS) + SESSION_LENGTH :] = PADDING
    return rows


def session_pasts(moment: Moment, users: np.ndarray, session: np.ndarray) -> list[Past]:
    """What is known of users as if they were new: the newest few actions where there is a session."""
    catalogue = moment.tables.catalogue
    totals = user_totals(moment.log.newest(SESSION_LENGTH), len(catalogue))
    pasts = []
    for user, shown in zip(users.tolist(), session, strict=True):
        item, numbers = totals.of(user)
        item, numbers = (item, numbers) if shown else (item[:0], numbers[:0])
        pasts.append(Past(item.astype(np.int64), catalogue.groups[item], numbers))
    return pasts


def hit_curves(moments: Sequence[tuple[Moment, list[Asked]]]) -> np.ndarray:
    """How often a channel's position is right, float32 (CHANNELS, DEPTH), descending.

    A position's share of hits among those who were given one, averaged over ever longer stretches,
    because a single far position is hit too rarely to be counted.
    """
    hits, given = np.zeros((len(CHANNELS), DEPTH)), np.zeros((len(CHANNELS), DEPTH))
    for moment, asked in moments:
        for one in asked:
            interest = Interest.of(one.past.item, one.past.numbers, moment.now)
            lists = moment.proposer.lists(moment.proposer.asked(interest, one.past.item), one.vector)
            for channel, found in enumerate(lists):
                right = np.isin(found.item[:DEPTH], one.truth)
                hits[channel, : len(right)] += right
                given[channel, : len(right)] += 1
    edges = np.unique(np.geomspace(1, DEPTH + 1, 25).astype(int)) - 1
    of = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    curves = np.zeros((len(CHANNELS), DEPTH), dtype=np.float32)
    for channel in range(len(CHANNELS)):
        rate = np.bincount(of, hits[channel]) / np.maximum(np.bincount(of, given[channel]), 1)
        middle = (edges[:-1] + edges[1:] - 1) / 2
        smooth = np.interp(np.arange(DEPTH), middle, rate)
        curves[channel] = np.clip(np.minimum.accumulate(smooth), 1e-6, 0.99)
    return curves


@dataclass(frozen=True)
class _Part:
    user: np.ndarray
    item: np.ndarray
    known: np.ndarray
    features: np.ndarray
    taken: np.ndarray


def candidate_rows(
    moments: list[tuple[Moment, list[Asked]]], settings: CandidateSettings, rng: np.random.Generator
) -> tuple[RankerRows, Quantiles]:
    """All moments' candidates as the ranker's examples, and the quantiles that their features have."""
    parts = [_part(moment, one, settings, rng) for moment, asked in moments for one in asked]
    features = np.concatenate([part.features for part in parts])
    sample = features[rng.permutation(len(features))[:_QUANTILE_ROWS]]
    quantiles = Quantiles.fit(sample)
    levels = np.concatenate([quantiles.levels(part.features).astype(np.uint8) for part in parts])
    taken = np.concatenate([part.taken for part in parts])
    rows = RankerRows(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.known for part in parts]),
        levels,
        taken,
        np.where(taken, 1, 1 / settings.negatives).astype(np.float32),
    )
    return rows, quantiles


def _part(moment: Moment, one: Asked, settings: CandidateSettings, rng: np.random.Generator) -> _Part:
    proposals = moment.propose(one.past, one.vector, settings.depth)
    taken = np.isin(proposals.item, one.truth)
    kept = taken | (rng.random(len(taken)) < settings.negatives)
    features = moment.features(one.past, proposals)[kept]
    count = len(features)
    return _Part(
        np.full(count, one.user, dtype=np.int32),
        proposals.item[kept].astype(np.int32),
        np.full(count, one.known),
        features,
        taken[kept],
    )

"""What the ranker learns from: the candidates that recall returned at past snapshots, and who took which.

At each of several snapshots, weeks apart, the users are asked for as they would have been then: tables,
aggregates and candidates as of the snapshot, labels from the weeks after it. Some are asked for as if they
were new, with their profile alone or with a short session, so that the ranker has seen such users.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.features.quantiles import Quantiles
from ecrs.features.ranking import CHANNELS, EncodedAggregates
from ecrs.recall.blending import DEPTH
from ecrs.recall.channels import Interest, ScoredItems
from ecrs_models.data.log import Log
from ecrs_models.snapshots.new_users import new_user_rows, session_aggregates
from ecrs_models.snapshots.snapshot import NearestItems, Snapshot

_QUANTILE_ROWS = 200_000
EmbedUsers = Callable[[np.ndarray], np.ndarray]
"""User tower: ids, int64 (N, columns) → float32 (N, dim)."""


@dataclass(frozen=True)
class CandidateSettings:
    """`depth`: candidates a user; `users`: at most so many a snapshot; `negatives`: the share of what was not
    taken that is kept; `as_new`: the share of users who are asked for once more as new."""

    depth: int = 500
    users: int = 3000
    negatives: float = 0.3
    as_new: float = 0.1


@dataclass(frozen=True)
class ExampleUser:
    """One user at one snapshot. `truth`, items taken in the weeks after; `known`: by id, not as new."""

    user: int
    past: EncodedAggregates
    vector: ScoredItems
    truth: np.ndarray
    known: bool


@dataclass(frozen=True)
class RankingExamples:
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


def example_users(
    snapshot: Snapshot,
    later: Log,
    nearest: NearestItems,
    user_vectors: EmbedUsers,
    settings: CandidateSettings,
    rng: np.random.Generator,
) -> Iterator[ExampleUser]:
    """The users of a snapshot who came back after it, some of them also as new."""
    came_back = np.flatnonzero((np.diff(snapshot.aggregates.start) > 0) & (np.diff(later.start) > 0))
    if len(came_back) > settings.users:
        came_back = np.sort(rng.choice(came_back, settings.users, replace=False))
    if not len(came_back):  # of a small shop there may be none, here and below
        return
    truth = {
        user: np.unique(later.item[later.start[user] : later.start[user + 1]]) for user in came_back.tolist()
    }
    found = nearest(user_vectors(snapshot.user_tower_input(came_back)))
    for user, vector in zip(came_back.tolist(), found, strict=True):
        yield ExampleUser(user, snapshot.encoded_aggregates(user), vector, truth[user], known=True)
    as_new = came_back[rng.random(len(came_back)) < settings.as_new]
    if not len(as_new):
        return
    session = rng.random(len(as_new)) < 0.5
    rows = new_user_rows(snapshot, as_new, session)
    pasts = session_aggregates(snapshot, as_new, session)
    for user, past, vector in zip(as_new.tolist(), pasts, nearest(user_vectors(rows)), strict=True):
        yield ExampleUser(user, past, vector, truth[user], known=False)


def position_precision(snapshots: Sequence[tuple[Snapshot, list[ExampleUser]]]) -> np.ndarray:
    """How often a channel's position is right, float32 (CHANNELS, DEPTH), descending.

    A position's share of hits among those who were given one, averaged over ever longer stretches,
    because a single far position is hit too rarely to be counted.
    """
    hits, given = np.zeros((len(CHANNELS), DEPTH)), np.zeros((len(CHANNELS), DEPTH))
    for snapshot, asked in snapshots:
        for one in asked:
            interest = Interest.of(one.past.item, one.past.numbers, snapshot.cutoff)
            lists = snapshot.generator.channel_lists(
                snapshot.generator.user_context(interest, one.past.item), one.vector
            )
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


def ranking_examples(
    snapshots: list[tuple[Snapshot, list[ExampleUser]]], settings: CandidateSettings, rng: np.random.Generator
) -> tuple[RankingExamples, Quantiles]:
    """All snapshots' candidates as the ranker's examples, and the quantiles that their features have."""
    parts = [_part(snapshot, one, settings, rng) for snapshot, asked in snapshots for one in asked]
    features = np.concatenate([part.features for part in parts])
    sample = features[rng.permutation(len(features))[:_QUANTILE_ROWS]]
    quantiles = Quantiles.fit(sample)
    levels = np.concatenate([quantiles.levels(part.features).astype(np.uint8) for part in parts])
    taken = np.concatenate([part.taken for part in parts])
    rows = RankingExamples(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.known for part in parts]),
        levels,
        taken,
        np.where(taken, 1, 1 / settings.negatives).astype(np.float32),
    )
    return rows, quantiles


def _part(
    snapshot: Snapshot, one: ExampleUser, settings: CandidateSettings, rng: np.random.Generator
) -> _Part:
    proposals = snapshot.blend(one.past, one.vector, settings.depth)
    taken = np.isin(proposals.item, one.truth)
    kept = taken | (rng.random(len(taken)) < settings.negatives)
    features = snapshot.features(one.past, proposals)[kept]
    count = len(features)
    return _Part(
        np.full(count, one.user, dtype=np.int32),
        proposals.item[kept].astype(np.int32),
        np.full(count, one.known),
        features,
        taken[kept],
    )

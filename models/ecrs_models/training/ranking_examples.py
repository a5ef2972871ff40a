"""The ranker's examples: candidates that retrieval found at past snapshots, labelled by later purchases.

The snapshots lie a label window apart. At each one, users are retrieved for as they were then: tables,
aggregates and candidates as of the snapshot, labels from the window after it. Some users are retrieved for
once more as if they were new, by their profile alone or with a short session, so that the ranker sees such
users too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.features.quantiles import Quantiles
from ecrs.features.ranking import CHANNELS, EncodedAggregates
from ecrs.recall.blending import DEPTH, UserContext, discoverable_items
from ecrs.recall.channels import Interest, ScoredItems
from ecrs_models.data.log import Log
from ecrs_models.snapshots.new_users import new_user_rows, session_aggregates
from ecrs_models.snapshots.snapshot import NearestItems, Snapshot

EmbedUsers = Callable[[np.ndarray], np.ndarray]
"""The user tower: ids, int64 (N, USER_TOWER_COLUMNS) → float32 (N, DIM)."""


@dataclass(frozen=True)
class CandidateSettings:
    """How examples are drawn.

    `depth`: candidates per user; `users`: most users per snapshot; `negatives`: share of the candidates
    without a purchase that is kept; `as_new`: share of the users who are added once more as new users.
    """

    depth: int = 500
    users: int = 3000
    negatives: float = 0.3
    as_new: float = 0.1


@dataclass(frozen=True)
class ExampleUser:
    """A user at a snapshot.

    `nearest`, what the vector channel finds; `purchased`, the distinct items bought in the label window;
    `known`, False if the user is treated as new.
    """

    user: int
    aggregates: EncodedAggregates
    nearest: ScoredItems
    purchased: np.ndarray
    known: bool


@dataclass(frozen=True)
class RankingExamples:
    """A row per candidate.

    `user`, `item`, int32 (N,), rows of the tables; `known`, bool (N,); `levels`, uint8 (N, FEATURES);
    `label`, bool (N,), whether the item was bought; `weight`, float32 (N,), above 1 where a row stands for
    rows that were not drawn.
    """

    user: np.ndarray
    item: np.ndarray
    known: np.ndarray
    levels: np.ndarray
    label: np.ndarray
    weight: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence["RankingExamples"]) -> "RankingExamples":
        """The rows of all parts."""
        return cls(
            *(np.concatenate(columns) for columns in zip(*(vars(one).values() for one in parts), strict=True))
        )


def example_users(
    snapshot: Snapshot,
    later: Log,
    nearest: NearestItems,
    embed_users: EmbedUsers,
    settings: CandidateSettings,
    rng: np.random.Generator,
) -> Iterator[ExampleUser]:
    """Users of a snapshot who bought something in `later`, then some of them once more as new users."""
    returned = np.flatnonzero((np.diff(snapshot.aggregates.start) > 0) & (np.diff(later.start) > 0))
    if len(returned) > settings.users:
        returned = np.sort(rng.choice(returned, settings.users, replace=False))
    if not len(returned):  # possible in a small shop, as is an empty `as_new` below
        return
    purchased = {
        user: np.unique(later.item[later.start[user] : later.start[user + 1]]) for user in returned.tolist()
    }
    found = nearest(embed_users(snapshot.user_tower_input(returned)))
    for user, items in zip(returned.tolist(), found, strict=True):
        yield ExampleUser(user, snapshot.encoded_aggregates(user), items, purchased[user], known=True)
    as_new = returned[rng.random(len(returned)) < settings.as_new]
    if not len(as_new):
        return
    session = rng.random(len(as_new)) < 0.5
    rows = new_user_rows(snapshot, as_new, session)
    aggregates = session_aggregates(snapshot, as_new, session)
    for user, own, items in zip(as_new.tolist(), aggregates, nearest(embed_users(rows)), strict=True):
        yield ExampleUser(user, own, items, purchased[user], known=False)


@dataclass(frozen=True)
class Draw:
    """Candidates drawn for one snapshot: as RankingExamples, with `features`, float32 (N, FEATURES)."""

    user: np.ndarray
    item: np.ndarray
    known: np.ndarray
    features: np.ndarray
    label: np.ndarray

    def encoded(self, quantiles: Quantiles, negatives: float) -> RankingExamples:
        """With the features as quantile levels; rows without a purchase weigh 1 / `negatives`."""
        levels = quantiles.levels(self.features).astype(np.uint8)
        weight = np.where(self.label, 1, 1 / negatives).astype(np.float32)
        return RankingExamples(self.user, self.item, self.known, levels, self.label, weight)


@dataclass(frozen=True)
class _CompactContext:
    """A `UserContext` without its zeros.

    A context has a score for every product, so those of all example users take gigabytes.

    `items`: length of the catalogue; `held`, rows of the user's aggregates; `scored`, rows whose score by
    similar items is not 0, with their `scores`.
    """

    items: int
    held: np.ndarray
    scored: np.ndarray
    scores: np.ndarray
    category_lift: np.ndarray
    channel_lists: Sequence[ScoredItems]

    @classmethod
    def of(cls, context: UserContext, held: np.ndarray) -> "_CompactContext":
        similar = context.similar_scores
        scored = np.flatnonzero(similar)
        return cls(len(similar), held, scored, similar[scored], context.category_lift, context.channel_lists)

    def expanded(self) -> UserContext:
        similar = np.zeros(self.items)
        similar[self.scored] = self.scores
        return UserContext(
            discoverable_items(self.items, self.held), similar, self.category_lift, self.channel_lists
        )


class SnapshotExamples:
    """The example users of one snapshot, and what the channels without vectors find for each."""

    def __init__(self, snapshot: Snapshot, users: Sequence[ExampleUser]) -> None:
        self._snapshot, self._users = snapshot, users
        self._contexts = [self._context(one) for one in users]

    def channel_hits(self) -> tuple[np.ndarray, np.ndarray]:
        """How often an item at each position of each channel was bought, and how often there was one.

        Both float64, (CHANNELS, DEPTH).
        """
        hits, filled = np.zeros((len(CHANNELS), DEPTH)), np.zeros((len(CHANNELS), DEPTH))
        for one, context in zip(self._users, self._contexts, strict=True):
            lists = self._snapshot.generator.channel_lists(context.expanded(), one.nearest)
            for channel, found in enumerate(lists):
                bought = np.isin(found.item[:DEPTH], one.purchased)
                hits[channel, : len(bought)] += bought
                filled[channel, : len(bought)] += 1
        return hits, filled

    def draw(self, curves: np.ndarray, settings: CandidateSettings, rng: np.random.Generator) -> Draw:
        """Blend every user's candidates by the position-precision curves, and draw examples from them."""
        snapshot = self._snapshot.with_curves(curves)
        user, item, known, features, label = [], [], [], [], []
        for one, context in zip(self._users, self._contexts, strict=True):
            candidates = snapshot.generator.blend(context.expanded(), one.nearest, settings.depth)
            bought = np.isin(candidates.item, one.purchased)
            drawn = np.flatnonzero(bought | (rng.random(len(bought)) < settings.negatives))
            candidates = candidates.take(drawn)
            user.append(np.full(len(drawn), one.user, dtype=np.int32))
            item.append(candidates.item.astype(np.int32))
            known.append(np.full(len(drawn), one.known))
            features.append(snapshot.features(one.aggregates, candidates))
            label.append(bought[drawn])
        return Draw(*map(np.concatenate, (user, item, known, features, label)))

    def _context(self, one: ExampleUser) -> _CompactContext:
        held = one.aggregates.item
        interest = Interest.of(held, one.aggregates.numbers, self._snapshot.cutoff)
        return _CompactContext.of(self._snapshot.generator.user_context(interest, held), held)


def position_precision(hits: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Position-precision curves: the share of hits at each position, float32 (CHANNELS, DEPTH), descending.

    From the sums of `channel_hits`. A position far down is hit too rarely to be estimated alone, so positions
    are averaged in ranges that grow geometrically.
    """
    edges = np.unique(np.geomspace(1, DEPTH + 1, 25).astype(int)) - 1
    of = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    curves = np.zeros((len(CHANNELS), DEPTH), dtype=np.float32)
    for channel in range(len(CHANNELS)):
        rate = np.bincount(of, hits[channel]) / np.maximum(np.bincount(of, filled[channel]), 1)
        middle = (edges[:-1] + edges[1:] - 1) / 2
        smooth = np.interp(np.arange(DEPTH), middle, rate)
        curves[channel] = np.clip(np.minimum.accumulate(smooth), 1e-6, 0.99)
    return curves

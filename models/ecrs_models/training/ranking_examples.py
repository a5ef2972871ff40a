"""The ranker's examples: candidates that retrieval returns at past snapshots, labelled by later purchases.

The snapshots lie a label window apart. At each one, candidates are retrieved with the tables and aggregates
as of its cutoff, and labelled by the purchases in the label window after it. For some users, candidates are
retrieved a second time as if they were new, with their profile alone or with a short session, so that the
ranker is also trained on new users.
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
"""The user tower: maps ids, int64 (N, USER_TOWER_COLUMNS), to float32 (N, DIM)."""


@dataclass(frozen=True)
class CandidateSettings:
    """How examples are drawn.

    `depth`: candidates per user; `users`: largest number of users per snapshot; `negatives`: share of the
    candidates without a purchase that is kept; `as_new`: share of the users who are added a second time as
    new users.
    """

    depth: int = 500
    users: int = 3000
    negatives: float = 0.3
    as_new: float = 0.1


@dataclass(frozen=True)
class ExampleUser:
    """A user at a snapshot.

    `user`: row of the user; `nearest`: results of the vector channel; `purchased`: the distinct items bought
    in the label window; `known`: False if the user is treated as new.
    """

    user: int
    aggregates: EncodedAggregates
    nearest: ScoredItems
    purchased: np.ndarray
    known: bool


@dataclass(frozen=True)
class RankingExamples:
    """The ranker's examples, one row per candidate.

    `user`, `item`, int32 (N,): rows of the tables; `known`, bool (N,): False if the user is treated as new;
    `levels`, uint8 (N, FEATURES): quantile levels of the features; `label`, bool (N,): True if the user
    bought the item in the label window; `weight`, float32 (N,): above 1 for rows that also represent rows
    that were not drawn.
    """

    user: np.ndarray
    item: np.ndarray
    known: np.ndarray
    levels: np.ndarray
    label: np.ndarray
    weight: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence["RankingExamples"]) -> "RankingExamples":
        """Concatenate the rows of all parts."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))


def example_users(
    snapshot: Snapshot,
    later: Log,
    nearest: NearestItems,
    embed_users: EmbedUsers,
    settings: CandidateSettings,
    rng: np.random.Generator,
) -> Iterator[ExampleUser]:
    """Yield users of a snapshot who bought something in `later`, then some of them again as new users.

    `later` holds the positive actions in the label window. If there are more than `settings.users`, a sample
    is drawn.
    """
    returned = np.flatnonzero((np.diff(snapshot.aggregates.start) > 0) & (np.diff(later.start) > 0))
    if len(returned) > settings.users:
        returned = np.sort(rng.choice(returned, settings.users, replace=False))
    if not len(returned):  # possible in a small shop, like an empty `as_new` below
        return
    purchased = {
        user: np.unique(later.item[later.start[user] : later.start[user + 1]]) for user in returned.tolist()
    }
    neighbours = nearest(embed_users(snapshot.user_tower_input(returned)))
    for user, items in zip(returned.tolist(), neighbours, strict=True):
        yield ExampleUser(user, snapshot.encoded_aggregates(user), items, purchased[user], known=True)
    as_new = returned[rng.random(len(returned)) < settings.as_new]
    if not len(as_new):
        return
    session = rng.random(len(as_new)) < 0.5
    rows = new_user_rows(snapshot, as_new, session)
    aggregates = session_aggregates(snapshot, as_new, session)
    for user, past, items in zip(as_new.tolist(), aggregates, nearest(embed_users(rows)), strict=True):
        yield ExampleUser(user, past, items, purchased[user], known=False)


@dataclass(frozen=True)
class Draw:
    """Examples drawn at one snapshot.

    Columns as in RankingExamples, but with the features themselves, float32 (N, FEATURES), instead of levels.
    """

    user: np.ndarray
    item: np.ndarray
    known: np.ndarray
    features: np.ndarray
    label: np.ndarray

    def encoded(self, quantiles: Quantiles, negatives: float) -> RankingExamples:
        """Encode the features as quantile levels. Rows without a purchase get the weight 1 / `negatives`."""
        levels = quantiles.levels(self.features).astype(np.uint8)
        weight = np.where(self.label, 1, 1 / negatives).astype(np.float32)
        return RankingExamples(self.user, self.item, self.known, levels, self.label, weight)


@dataclass(frozen=True)
class _CompactContext:
    """A `UserContext` without its zeros.

    A context has a score for every item, so the contexts of all example users take gigabytes.

    `items`: length of the catalogue. `interacted`: rows of the items in the user's aggregates. `scored`: rows
    whose score by similar items is not 0; `scores`: those scores.
    """

    items: int
    interacted: np.ndarray
    scored: np.ndarray
    scores: np.ndarray
    category_lift: np.ndarray
    channel_lists: Sequence[ScoredItems]

    @classmethod
    def of(cls, context: UserContext, interacted: np.ndarray) -> "_CompactContext":
        similar = context.similar_scores
        scored = np.flatnonzero(similar)
        return cls(
            len(similar), interacted, scored, similar[scored], context.category_lift, context.channel_lists
        )

    def expanded(self) -> UserContext:
        similar = np.zeros(self.items)
        similar[self.scored] = self.scores
        return UserContext(
            discoverable_items(self.items, self.interacted), similar, self.category_lift, self.channel_lists
        )


class SnapshotExamples:
    """The example users of one snapshot, with the results of all channels for each."""

    def __init__(self, snapshot: Snapshot, users: Sequence[ExampleUser]) -> None:
        self._snapshot, self._users = snapshot, users
        self._contexts = [self._context(example) for example in users]

    def channel_hits(self) -> tuple[np.ndarray, np.ndarray]:
        """Count the purchases at each position of each channel, and how often the position was filled.

        Both are float64, (CHANNELS, DEPTH).
        """
        hits, filled = np.zeros((len(CHANNELS), DEPTH)), np.zeros((len(CHANNELS), DEPTH))
        for example, context in zip(self._users, self._contexts, strict=True):
            lists = self._snapshot.generator.channel_lists(context.expanded(), example.nearest)
            for channel, items in enumerate(lists):
                bought = np.isin(items.item[:DEPTH], example.purchased)
                hits[channel, : len(bought)] += bought
                filled[channel, : len(bought)] += 1
        return hits, filled

    def draw(self, curves: np.ndarray, settings: CandidateSettings, rng: np.random.Generator) -> Draw:
        """Blend every user's candidates by the position-precision curves, and draw examples from them."""
        snapshot = self._snapshot.with_curves(curves)
        user, item, known, features, label = [], [], [], [], []
        for example, context in zip(self._users, self._contexts, strict=True):
            candidates = snapshot.generator.blend(context.expanded(), example.nearest, settings.depth)
            bought = np.isin(candidates.item, example.purchased)
            drawn = np.flatnonzero(bought | (rng.random(len(bought)) < settings.negatives))
            candidates = candidates.take(drawn)
            user.append(np.full(len(drawn), example.user, dtype=np.int32))
            item.append(candidates.item.astype(np.int32))
            known.append(np.full(len(drawn), example.known))
            features.append(snapshot.features(example.aggregates, candidates))
            label.append(bought[drawn])
        return Draw(*map(np.concatenate, (user, item, known, features, label)))

    def _context(self, example: ExampleUser) -> _CompactContext:
        past = example.aggregates
        interest = Interest.of(past.item, past.numbers, self._snapshot.cutoff)
        return _CompactContext.of(self._snapshot.generator.user_context(interest, past.item), past.item)


def position_precision(hits: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Estimate the position-precision curves: the precision of each position of each channel.

    Returns float32 (CHANNELS, DEPTH), descending along positions, from the summed results of `channel_hits`.
    Hits far down a list are too rare to estimate each position alone, so that positions are averaged in
    ranges whose length grows geometrically.
    """
    edges = np.unique(np.geomspace(1, DEPTH + 1, 25).astype(int)) - 1
    range_of = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    curves = np.zeros((len(CHANNELS), DEPTH), dtype=np.float32)
    for channel in range(len(CHANNELS)):
        rate = np.bincount(range_of, hits[channel]) / np.maximum(np.bincount(range_of, filled[channel]), 1)
        middle = (edges[:-1] + edges[1:] - 1) / 2
        smooth = np.interp(np.arange(DEPTH), middle, rate)
        curves[channel] = np.clip(np.minimum.accumulate(smooth), 1e-6, 0.99)
    return curves

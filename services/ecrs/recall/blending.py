"""Blends the candidates of all retrieval channels into one list. No I/O.

Serving, training and evaluation use this code.

Each channel has a position-precision curve, learned from past snapshots: how often an item at a position of
the channel's list was bought in the label window. The estimated precision of a candidate is the probability
that at least one of the channels that found it is right, and candidates are ordered by it. So no channel has
a fixed quota: the next slot goes to the channel that is most likely to be right.
Source: Lillis et al., "ProbFuse: a probabilistic approach to data fusion", SIGIR 2006.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.features.catalogue import NO_ID, Catalogue
from ecrs.features.ranking import CHANNELS
from ecrs.recall.channels import Interest, PopularItems, ScoredItems, SimilarItems, repurchase, top_items

DEPTH = 400
"""Candidates taken from each channel, and length of the curves. `repurchase` returns all of its items."""
_SIMILAR, _POPULAR = CHANNELS.index("similar"), CHANNELS.index("popular")


@dataclass(frozen=True)
class UserContext:
    """What the bundle's tables yield for a user: the results of all channels but `vector`.

    `discoverable`: bool, shape (items + 1,), True for items that channels other than `repurchase` may return;
    the last entry is for unknown items.
    `similar_scores`: float64, shape (items,), and `category_lift`: float64, shape (categories,), from which
    every candidate gets its scores of `similar` and `popular`.
    `channel_lists`: the items of `repurchase`, `similar` and `popular`.
    """

    discoverable: np.ndarray
    similar_scores: np.ndarray
    category_lift: np.ndarray
    channel_lists: Sequence[ScoredItems]


def discoverable_items(items: int, interacted: np.ndarray) -> np.ndarray:
    """Return a mask of the catalogue without the items in the user's aggregates, bool, shape (items + 1,).

    The last value is for NO_ID and for items that the catalogue does not have.
    """
    rows = np.ones(items + 1, dtype=bool)
    rows[interacted] = False
    rows[NO_ID] = True
    return rows


@dataclass(frozen=True)
class BlendedCandidates:
    """Blended candidates, best first.

    `item`: int64, shape (N,), rows of the catalogue; items that the catalogue does not have are numbered from
    `len(catalogue)` on.
    `positions`: float32, shape (N, CHANNELS), from 1, NaN if the channel did not find the item.
    `scores`: float32, shape (N, CHANNELS), NaN if the channel has no score for the item.
    `precision`: float32, shape (N,), the estimated probability that the user buys the item.
    """

    item: np.ndarray
    positions: np.ndarray
    scores: np.ndarray
    precision: np.ndarray

    def first(self, n: int) -> "BlendedCandidates":
        """Return the first `n` candidates."""
        return self.take(slice(n))

    def take(self, rows: np.ndarray | slice) -> "BlendedCandidates":
        """Return the candidates at `rows`."""
        return BlendedCandidates(
            self.item[rows], self.positions[rows], self.scores[rows], self.precision[rows]
        )


@dataclass(frozen=True)
class CandidateGenerator:
    """Generates candidates from the tables of one bundle.

    `curves`: float32, shape (CHANNELS, DEPTH), position-precision curves with values in (0, 1), descending.
    """

    catalogue: Catalogue
    similar: SimilarItems
    popular: PopularItems
    curves: np.ndarray

    def single_channel(self, name: str, interest: Interest, vector: ScoredItems, n: int) -> ScoredItems:
        """Return the first `n` items of one channel, including items that the user interacted with before.

        `vector`: the items that the vector channel found, nearest first.
        """
        if name == "repurchase":
            return repurchase(interest).first(n)
        if name == "vector":
            return vector.first(n)
        if name == "similar":
            scores = self.similar.scores(interest)
            return top_items(np.arange(len(scores)), scores, n)
        sellers = self.popular.sellers
        return top_items(sellers, self.popular.scores(sellers, self.popular.lift(interest)), n)

    def user_context(
        self, interest: Interest, interacted: np.ndarray, *, new_only: bool = False
    ) -> UserContext:
        """Run all channels except `vector`.

        `interacted`: int64, catalogue rows of the items in the user's aggregates. Only `repurchase` may
        return them; the other channels are for discovery. With `new_only`, `repurchase` returns the items
        that the user engaged with and never bought.
        """
        similar, lift = self.similar.scores(interest), self.popular.lift(interest)
        discoverable = discoverable_items(len(self.catalogue), interacted)
        neighbours = np.flatnonzero(similar > 0)  # on bools: on a million floats, it takes 2.5 ms, not 0.3
        neighbours = neighbours[discoverable[neighbours]]
        sellers = self.popular.sellers
        sellers = sellers[discoverable[sellers]]
        return UserContext(
            discoverable,
            similar,
            lift,
            [
                repurchase(interest.never_bought() if new_only else interest),
                top_items(neighbours, similar[neighbours], DEPTH),
                top_items(sellers, self.popular.scores(sellers, lift), DEPTH),
            ],
        )

    def channel_lists(self, context: UserContext, vector: ScoredItems) -> list[ScoredItems]:
        """Return the items of each channel, in the order of CHANNELS.

        `vector`: the items that the vector channel found, nearest first.
        """
        discoverable = context.discoverable[np.minimum(vector.item, len(self.catalogue))]
        return [
            *context.channel_lists,
            ScoredItems(vector.item[discoverable], vector.score[discoverable]).first(DEPTH),
        ]

    def blend(self, context: UserContext, vector: ScoredItems, n: int) -> BlendedCandidates:
        """Return the best `n` candidates of all channels, or fewer if there are not as many.

        A candidate's precision is 1 - Π(1 - p), over the channels that found it, with p the value of the
        channel's curve at the candidate's position.
        """
        lists = self.channel_lists(context, vector)
        # One entry per item of each list: its channel, its position (from 0), and its row in `item`.
        counts = [len(found.item) for found in lists]
        channel = np.repeat(np.arange(len(lists)), counts)
        position = np.concatenate([np.arange(count) for count in counts])
        item, candidate = np.unique(np.concatenate([found.item for found in lists]), return_inverse=True)
        precisions = self.curves[channel, np.minimum(position, self.curves.shape[1] - 1)]
        precision = -np.expm1(np.bincount(candidate, np.log1p(-precisions), len(item))).astype(np.float32)
        order = np.argsort(-precision, kind="stable")[:n]
        row_of = np.full(len(item), -1)  # row of each candidate in the result, -1 if it is not among the best
        row_of[order] = np.arange(len(order))
        row = row_of[candidate]
        item, precision = item[order], precision[order]

        shape = (len(item), len(CHANNELS))
        positions, scores = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        known = item < len(self.catalogue)
        scores[known, _SIMILAR] = context.similar_scores[item[known]]
        scores[known, _POPULAR] = self.popular.scores(item[known], context.category_lift)
        kept = row >= 0
        positions[row[kept], channel[kept]] = position[kept] + 1
        scores[row[kept], channel[kept]] = np.concatenate([found.score for found in lists])[kept]
        return BlendedCandidates(item, positions, scores, precision)

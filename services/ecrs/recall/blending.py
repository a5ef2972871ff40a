"""What all channels propose to a user, merged: pure, the same for serving, training and evaluation.

Each channel knows at which position it tends to be right: `curves` say how often an item at a position
of a channel is really taken, learned from past moments. An item's precision is that at least one of its
channels is right, and precisions order the merged list. So no channel has a fixed quota: the next slot goes
to whoever is likelier to be right with it.
Source: Lillis et al., "ProbFuse: a probabilistic approach to data fusion", SIGIR 2006.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.features.catalogue import NO_ID, Catalogue
from ecrs.features.ranking import CHANNELS
from ecrs.recall.channels import Interest, PopularItems, ScoredItems, SimilarItems, repurchase, top_items

DEPTH = 400
"""How deep a channel is asked, and how far `curves` go; `repurchase` gives all there is."""
_SIMILAR, _POPULAR = CHANNELS.index("similar"), CHANNELS.index("popular")


@dataclass(frozen=True)
class UserContext:
    """What the tables say of a user, before the vector channel has answered.

    `new`, bool (items + 1,), whether an item may be discovered; `similar`, float64 (items,), and `lift`,
    float64 (categories,), the scores that all candidates get; `lists`, the channels' proposals but
    `vector`'s.
    """

    discoverable: np.ndarray
    similar_scores: np.ndarray
    category_lift: np.ndarray
    channel_lists: Sequence[ScoredItems]


def discoverable(items: int, held: np.ndarray) -> np.ndarray:
    """Whether each item may be discovered, bool (items + 1,): those of the user's aggregates may not.

    The last value is for NO_ID and for products that the catalogue does not have.
    """
    rows = np.ones(items + 1, dtype=bool)
    rows[held] = False
    rows[NO_ID] = True
    return rows


@dataclass(frozen=True)
class BlendedCandidates:
    """Merged candidates, best first.

    `item`, int64 (N,), rows of the catalogue, of unknown products `len(catalogue)` and above;
    `positions`, `scores`, float32 (N, CHANNELS): NaN where a channel did not propose the item or has no
    score for it; `precision`, float32 (N,), that the item is taken.
    """

    item: np.ndarray
    positions: np.ndarray
    scores: np.ndarray
    precision: np.ndarray

    def first(self, n: int) -> "BlendedCandidates":
        """The first `n`."""
        return self.take(slice(n))

    def take(self, rows: np.ndarray | slice) -> "BlendedCandidates":
        """The candidates in these rows."""
        return BlendedCandidates(
            self.item[rows], self.positions[rows], self.scores[rows], self.precision[rows]
        )


@dataclass(frozen=True)
class CandidateGenerator:
    """The channels over one bundle's tables. `curves`, float32 (CHANNELS, DEPTH), in (0, 1), descending."""

    catalogue: Catalogue
    similar: SimilarItems
    popular: PopularItems
    curves: np.ndarray

    def single_channel(self, name: str, interest: Interest, vector: ScoredItems, n: int) -> ScoredItems:
        """One channel alone, as it is: also what the user had."""
        if name == "repurchase":
            return repurchase(interest).first(n)
        if name == "vector":
            return vector.first(n)
        if name == "similar":
            scores = self.similar.scores(interest)
            return top_items(np.arange(len(scores)), scores, n)
        sellers = self.popular.sellers
        return top_items(sellers, self.popular.scores(sellers, self.popular.lift(interest)), n)

    def user_context(self, interest: Interest, had: np.ndarray, *, new_only: bool = False) -> UserContext:
        """What the tables say, all channels but `vector`.

        `had`, int64, rows of all that is in the user's aggregates: those are for `repurchase` to propose, the
        other channels discover. With `new_only`, what was looked at and never bought is new.
        """
        similar, lift = self.similar.scores(interest), self.popular.lift(interest)
        new = discoverable(len(self.catalogue), had)
        along = np.flatnonzero(similar > 0)  # of a million floats themselves it takes 2.5 ms, of bools .3
        along = along[new[along]]
        sellers = self.popular.sellers
        sellers = sellers[new[sellers]]
        return UserContext(
            new,
            similar,
            lift,
            [
                repurchase(interest.never_bought() if new_only else interest),
                top_items(along, similar[along], DEPTH),
                top_items(sellers, self.popular.scores(sellers, lift), DEPTH),
            ],
        )

    def channel_lists(self, context: UserContext, vector: ScoredItems) -> list[ScoredItems]:
        """What each of CHANNELS proposes; `vector` is what the vector channel found, nearest first."""
        discovered = context.discoverable[np.minimum(vector.item, len(self.catalogue))]
        return [
            *context.channel_lists,
            ScoredItems(vector.item[discovered], vector.score[discovered]).first(DEPTH),
        ]

    def blend(self, context: UserContext, vector: ScoredItems, n: int) -> BlendedCandidates:
        """At most `n` candidates of all channels, by 1 - Π(1 - precision of its position) over channels."""
        found = self.channel_lists(context, vector)
        counts = [len(of.item) for of in found]
        channel = np.repeat(np.arange(len(found)), counts)
        place = np.concatenate([np.arange(count) for count in counts])  # of its channel's best it is 0
        item, one = np.unique(np.concatenate([of.item for of in found]), return_inverse=True)
        precisions = self.curves[channel, np.minimum(place, self.curves.shape[1] - 1)]
        precision = -np.expm1(np.bincount(one, np.log1p(-precisions), len(item))).astype(np.float32)
        order = np.argsort(-precision, kind="stable")[:n]
        row = np.full(len(item), -1)
        row[order] = np.arange(len(order))
        row = row[one]
        item, precision = item[order], precision[order]

        shape = (len(item), len(CHANNELS))
        positions, scores = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        inside = item < len(self.catalogue)
        scores[inside, _SIMILAR] = context.similar_scores[item[inside]]
        scores[inside, _POPULAR] = self.popular.scores(item[inside], context.category_lift)
        kept = row >= 0
        positions[row[kept], channel[kept]] = place[kept] + 1
        scores[row[kept], channel[kept]] = np.concatenate([of.score for of in found])[kept]
        return BlendedCandidates(item, positions, scores, precision)

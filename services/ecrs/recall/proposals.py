"""What all channels propose to a user, merged: pure, the same for serving, training and evaluation.

Each channel knows at which position it tends to be right: `curves` say how often an item at a position
of a channel is really taken, learned from past moments. An item's chance is that at least one of its
channels is right, and chances order the merged list. So no channel has a fixed quota: the next slot goes
to whoever is likelier to be right with it.
Source: Lillis et al., "ProbFuse: a probabilistic approach to data fusion", SIGIR 2006.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.catalogue import NO_ID, Catalogue
from ecrs.ranking_features import CHANNELS
from ecrs.recall.channels import Found, Interest, Popular, Similar, again, best

DEPTH = 400
"""How deep a channel is asked, and how far `curves` go; `again` gives all there is."""
_SIMILAR, _POPULAR = CHANNELS.index("similar"), CHANNELS.index("popular")


@dataclass(frozen=True)
class Asked:
    """What the tables say of a user, before the vector channel has answered.

    `new`, bool (items + 1,), whether an item may be discovered; `similar`, float64 (items,), and `lift`,
    float64 (categories,), the scores that all candidates get; `lists`, the channels' proposals but
    `vector`'s.
    """

    new: np.ndarray
    similar: np.ndarray
    lift: np.ndarray
    lists: Sequence[Found]


@dataclass(frozen=True)
class Proposals:
    """Merged candidates, best first.

    `item`, int64 (N,), rows of the catalogue, of unknown products `len(catalogue)` and above;
    `positions`, `scores`, float32 (N, CHANNELS): NaN where a channel did not propose the item or has no
    score for it; `chance`, float32 (N,), that the item is taken.
    """

    item: np.ndarray
    positions: np.ndarray
    scores: np.ndarray
    chance: np.ndarray

    def best(self, n: int) -> "Proposals":
        """The first n."""
        return Proposals(self.item[:n], self.positions[:n], self.scores[:n], self.chance[:n])


@dataclass(frozen=True)
class Proposer:
    """The channels over one bundle's tables. `curves`, float32 (CHANNELS, DEPTH), in (0, 1), descending."""

    catalogue: Catalogue
    similar: Similar
    popular: Popular
    curves: np.ndarray

    def channel(self, name: str, interest: Interest, vector: Found, n: int) -> Found:
        """One channel alone, as it is: also what the user had."""
        if name == "again":
            return again(interest).best(n)
        if name == "vector":
            return vector.best(n)
        if name == "similar":
            scores = self.similar.scores(interest)
            return best(np.arange(len(scores)), scores, n)
        sellers = self.popular.sellers
        return best(sellers, self.popular.scores(sellers, self.popular.lift(interest)), n)

    def asked(self, interest: Interest, had: np.ndarray, *, new_only: bool = False) -> Asked:
        """What the tables say, all channels but `vector`.

        `had`, int64, rows of all that is in the user's totals: those are for `again` to propose, the
        other channels discover. With `new_only`, what was looked at and never bought is new.
        """
        similar, lift = self.similar.scores(interest), self.popular.lift(interest)
        new = np.ones(len(self.catalogue) + 1, dtype=bool)  # the last is for NO_ID and unknown products
        new[had] = False
        new[NO_ID] = True
        along = np.flatnonzero(similar > 0)  # of a million floats themselves it takes 2.5 ms, of bools .3
        along = along[new[along]]
        sellers = self.popular.sellers
        sellers = sellers[new[sellers]]
        return Asked(
            new,
            similar,
            lift,
            [
                again(interest.never_bought() if new_only else interest),
                best(along, similar[along], DEPTH),
                best(sellers, self.popular.scores(sellers, lift), DEPTH),
            ],
        )

    def lists(self, asked: Asked, vector: Found) -> list[Found]:
        """What each of CHANNELS proposes; `vector` is what the vector channel found, nearest first."""
        discovered = asked.new[np.minimum(vector.item, len(self.catalogue))]
        return [*asked.lists, Found(vector.item[discovered], vector.score[discovered]).best(DEPTH)]

    def merged(self, asked: Asked, vector: Found, n: int) -> Proposals:
        """At most `n` candidates of all channels, by 1 - Π(1 - chance of its position) over channels."""
        found = self.lists(asked, vector)
        counts = [len(of.item) for of in found]
        channel = np.repeat(np.arange(len(found)), counts)
        place = np.concatenate([np.arange(count) for count in counts])  # of its channel's best it is 0
        item, one = np.unique(np.concatenate([of.item for of in found]), return_inverse=True)
        chances = self.curves[channel, np.minimum(place, self.curves.shape[1] - 1)]
        chance = -np.expm1(np.bincount(one, np.log1p(-chances), len(item))).astype(np.float32)
        order = np.argsort(-chance, kind="stable")[:n]
        row = np.full(len(item), -1)
        row[order] = np.arange(len(order))
        row = row[one]
        item, chance = item[order], chance[order]

        shape = (len(item), len(CHANNELS))
        positions, scores = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        inside = item < len(self.catalogue)
        scores[inside, _SIMILAR] = asked.similar[item[inside]]
        scores[inside, _POPULAR] = self.popular.scores(item[inside], asked.lift)
        kept = row >= 0
        positions[row[kept], channel[kept]] = place[kept] + 1
        scores[row[kept], channel[kept]] = np.concatenate([of.score for of in found])[kept]
        return Proposals(item, positions, scores, chance)

"""Products that came after the bundle: whom to propose them to, and their share of the candidates.

The bundle's tables do not speak of them, and the vector channel alone has little to say: of 60 users of
the Complete Journey, who each got a product of the brand, shop and category that they buy most, 8 had it
among 1,000 candidates. So newcomers compete with each other, by how much the user likes their category
and how near their vectors are, and a few of the best are among the candidates whatever their chance.
Ranking then judges them like all others.
"""

import numpy as np

from ecrs.catalogue import known
from ecrs.recall.channels import Interest, Popular
from ecrs.recall.domain import NEW, Candidates
from ecrs.recall.vectors import Neighbours
from ecrs.sources import Sources

SHARE = 20
"""One candidate in so many may be a newcomer for being one."""

TEMPERATURE = 0.07
"""Of the softmax that the towers were trained with: e^(cosine / TEMPERATURE) is how much likelier a near
item is."""


def best_newcomers(near: Neighbours, interest: Interest, popular: Popular, n: int) -> Candidates:
    """The `n` best of the newcomers in `near`, by P(category | user) · e^(cosine / TEMPERATURE).

    The score is its negative logarithm, but for a constant: it ascends as a distance does.
    """
    mix = popular.mix(interest)
    category = known(near.new_in)
    nameless = len(mix) - 1  # where `Popular` keeps the products of no known category
    likes = mix[np.where((category >= 0) & (category < nameless), category, nameless)]
    score = near.distance / (2 * TEMPERATURE) - np.log(np.maximum(likes, 1e-9))
    order = np.argsort(score, kind="stable")[:n]
    return Candidates.alone(NEW, [near.skus[row] for row in order.tolist()], score[order])


def with_newcomers(merged: Candidates, newcomers: Candidates, n: int) -> Candidates:
    """At most `n` of the merged candidates, and the newcomers among them.

    Those that are not among the best anyway come last, as likely as the last of the others.
    """
    if not len(newcomers):
        return merged.best(n)
    best = max(n - len(newcomers), 0)
    there = set(merged.skus[:best])
    late = [row for row, sku in enumerate(newcomers.skus) if sku not in there]
    there.update(newcomers.skus)
    rest = [row for row, sku in enumerate(merged.skus[best:n], best) if sku not in there]
    others = [*range(min(best, len(merged))), *rest][: n - len(late)]
    score = merged.score[others]
    last = score[-1:] if others else np.ones(1)
    channels = (*merged.sources.channels, NEW)
    sources = Sources.silent(len(others) + len(late), channels)
    sources.positions[: len(others), :-1] = merged.sources.positions[others]
    sources.scores[: len(others), :-1] = merged.sources.scores[others]
    sources.positions[len(others) :, -1:] = newcomers.sources.positions[late]
    sources.scores[len(others) :, -1:] = newcomers.sources.scores[late]
    return Candidates(
        [merged.skus[row] for row in others] + [newcomers.skus[row] for row in late],
        np.concatenate([score, last.repeat(len(late))]),
        sources,
        merged.missing,
    )

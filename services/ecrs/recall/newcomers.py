"""Products that came after the bundle: whom to propose them to, and their share of the candidates.

The bundle's tables do not speak of them, and the vector channel alone has little to say: of 60 users of
the Complete Journey, who each got a product of the brand, shop and category that they buy most, 8 had it
among 1,000 candidates. So newcomers compete with each other, by how much the user likes their category
and how near their vectors are, and a few of the best are among the candidates whatever their chance.
Ranking then judges them like all others.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ecrs.catalogue import known
from ecrs.recall.channels import Interest, Popular
from ecrs.recall.domain import NEW, Candidate, Source
from ecrs.recall.vectors import Neighbour

SHARE = 20
"""One candidate in so many may be a newcomer for being one."""

TEMPERATURE = 0.07
"""Of the softmax that the towers were trained with: e^(cosine / TEMPERATURE) is how much likelier a near
item is."""


def best_newcomers(
    near: Sequence[Neighbour], interest: Interest, popular: Popular, n: int
) -> list[Candidate]:
    """The `n` best of the newcomers in `near`, by P(category | user) · e^(cosine / TEMPERATURE).

    The score is its negative logarithm, but for a constant: it ascends as a distance does.
    """
    mix = popular.mix(interest)
    category = known(np.array([neighbour.new_in for neighbour in near], dtype=np.int64))
    nameless = len(mix) - 1  # where `Popular` keeps the products of no known category
    likes = mix[np.where((category >= 0) & (category < nameless), category, nameless)]
    distance = np.array([neighbour.distance for neighbour in near])
    score = distance / (2 * TEMPERATURE) - np.log(np.maximum(likes, 1e-9))
    order = np.argsort(score, kind="stable")[:n]
    return [
        Candidate(near[row].sku, score[row], (Source(NEW, position, score[row]),))
        for position, row in enumerate(order.tolist(), 1)
    ]


def with_newcomers(merged: Sequence[Candidate], newcomers: Sequence[Candidate], n: int) -> list[Candidate]:
    """At most `n` of the merged candidates, and the newcomers among them.

    Those that are not among the best anyway come last, as likely as the last of the others.
    """
    best = merged[: n - len(newcomers)]
    there = {candidate.sku for candidate in best}
    late = [candidate for candidate in newcomers if candidate.sku not in there]
    there |= {candidate.sku for candidate in late}
    rest = [candidate for candidate in merged[len(best) : n] if candidate.sku not in there]
    others = [*best, *rest][: n - len(late)]
    score = others[-1].score if others else 1.0
    return [*others, *(replace(candidate, score=score) for candidate in late)]

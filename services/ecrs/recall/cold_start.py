"""Products that came after the bundle: whom to propose them to, and their share of the candidates.

The bundle's tables do not speak of them, and the vector channel alone has little to say: of 60 users of
the Complete Journey, who each got a product of the brand, shop and category that they buy most, 8 had it
among 1,000 candidates. So newcomers compete with each other, by how much the user likes their category
and how near their vectors are, and a few of the best are among the candidates whatever their chance.
Ranking then judges them like all others.
"""

import numpy as np

from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.catalogue import known_ids
from ecrs.recall.candidates import COLD_START, RetrievedCandidates
from ecrs.recall.channels import Interest, PopularItems
from ecrs.storage.vectors import Neighbours

CANDIDATES_PER_COLD_START_ITEM = 20
"""One candidate in so many may be a newcomer for being one."""


def best_cold_start_items(
    near: Neighbours, interest: Interest, popular: PopularItems, temperature: float, n: int
) -> RetrievedCandidates:
    """The `n` best of the newcomers in `near`, by P(category | user) · e^(cosine / temperature).

    `temperature` is that of the softmax that the towers were trained with, so that the exponential is how
    much likelier a purchase of the item is than of a distant one.

    The score is its negative logarithm, but for a constant: it ascends as a distance does.
    """
    mix = popular.mix(interest)
    category = known_ids(near.cold_start_category)
    nameless = len(mix) - 1  # where `Popular` keeps the products of no known category
    likes = mix[np.where((category >= 0) & (category < nameless), category, nameless)]
    score = near.distance / (2 * temperature) - np.log(np.maximum(likes, 1e-9))
    order = np.argsort(score, kind="stable")[:n]
    return RetrievedCandidates.alone(COLD_START, [near.skus[row] for row in order.tolist()], score[order])


def with_cold_start_items(
    merged: RetrievedCandidates, newcomers: RetrievedCandidates, n: int
) -> RetrievedCandidates:
    """At most `n` of the merged candidates, and the newcomers among them.

    Those that are not among the best anyway come last, as likely as the last of the others.
    """
    if not len(newcomers):
        return merged.first(n)
    best = max(n - len(newcomers), 0)
    there = set(merged.skus[:best])
    late = [row for row, sku in enumerate(newcomers.skus) if sku not in there]
    there.update(newcomers.skus)
    rest = [row for row, sku in enumerate(merged.skus[best:n], best) if sku not in there]
    others = [*range(min(best, len(merged))), *rest][: n - len(late)]
    score = merged.score[others]
    last = score[-1:] if others else np.ones(1)
    channels = (*merged.provenance.channels, COLD_START)
    provenance = ProvenanceTable.empty(len(others) + len(late), channels)
    provenance.positions[: len(others), :-1] = merged.provenance.positions[others]
    provenance.scores[: len(others), :-1] = merged.provenance.scores[others]
    provenance.positions[len(others) :, -1:] = newcomers.provenance.positions[late]
    provenance.scores[len(others) :, -1:] = newcomers.provenance.scores[late]
    return RetrievedCandidates(
        [merged.skus[row] for row in others] + [newcomers.skus[row] for row in late],
        np.concatenate([score, last.repeat(len(late))]),
        provenance,
        merged.missing,
    )

"""Selects cold-start items for a user and sets their share of the candidate list.

Cold-start items were added after the bundle was built, so they are in none of its tables, and the vector
channel alone rarely finds them: for each of 60 users of the Complete Journey, an item of the brand, shop and
category that the user buys most was added, and only 8 users had theirs among 1,000 candidates. Therefore
cold-start items compete only with each other, by the user's affinity to their category and by the distance of
their vectors, and the best few become candidates whatever their estimated precision. The ranker then scores
them like all other candidates.
"""

import numpy as np

from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.catalogue import known_ids
from ecrs.recall.candidates import COLD_START, RetrievedCandidates
from ecrs.recall.channels import Interest, PopularItems
from ecrs.storage.vectors import Neighbours

CANDIDATES_PER_COLD_START_ITEM = 20
"""One place in this many of the candidate list is reserved for a cold-start item: 5 of 100."""


def best_cold_start_items(
    near: Neighbours, interest: Interest, popular: PopularItems, temperature: float, n: int
) -> RetrievedCandidates:
    """Return the best `n` of the cold-start items in `near`.

    They are ordered by P(category | user) · e^(cosine / temperature). `temperature` is that of the softmax
    that the towers were trained with, so that the exponential is proportional to the model's probability of
    the item. The score is the negative logarithm, up to a constant, so that it ascends like a distance.
    """
    mix = popular.mix(interest)
    category = known_ids(near.cold_start_category)
    unknown = len(mix) - 1  # `PopularItems` counts items without a known category as this last category
    affinity = mix[np.where((category >= 0) & (category < unknown), category, unknown)]
    score = near.distance / (2 * temperature) - np.log(np.maximum(affinity, 1e-9))
    order = np.argsort(score, kind="stable")[:n]
    return RetrievedCandidates.alone(COLD_START, [near.skus[row] for row in order.tolist()], score[order])


def with_cold_start_items(
    blended: RetrievedCandidates, cold_start: RetrievedCandidates, n: int
) -> RetrievedCandidates:
    """Return at most `n` candidates: all of `cold_start`, the rest from `blended`.

    Cold-start items that the blended list already has among its best keep their place. The others come last,
    with the score of the last blended candidate.
    """
    if not len(cold_start):
        return blended.first(n)
    reserved_from = max(n - len(cold_start), 0)  # from this position on, places may go to cold-start items
    placed = set(blended.skus[:reserved_from])
    added = [row for row, sku in enumerate(cold_start.skus) if sku not in placed]
    placed.update(cold_start.skus)
    rest = [row for row, sku in enumerate(blended.skus[reserved_from:n], reserved_from) if sku not in placed]
    kept = [*range(min(reserved_from, len(blended))), *rest][: n - len(added)]
    score = blended.score[kept]
    last_score = score[-1:] if kept else np.ones(1)
    channels = (*blended.provenance.channels, COLD_START)
    provenance = ProvenanceTable.empty(len(kept) + len(added), channels)
    provenance.positions[: len(kept), :-1] = blended.provenance.positions[kept]
    provenance.scores[: len(kept), :-1] = blended.provenance.scores[kept]
    provenance.positions[len(kept) :, -1:] = cold_start.provenance.positions[added]
    provenance.scores[len(kept) :, -1:] = cold_start.provenance.scores[added]
    return RetrievedCandidates(
        [blended.skus[row] for row in kept] + [cold_start.skus[row] for row in added],
        np.concatenate([score, last_score.repeat(len(added))]),
        provenance,
        blended.missing,
    )

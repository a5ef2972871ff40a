"""The work of recall and rank without the way there: ECRS' own pure code, for whoever is to do the same."""

from collections.abc import Sequence

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.clock import BundleClock
from ecrs.domain.entities import Item, User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.catalogue import NO_ID
from ecrs.rank.tables import load_ranker_inputs
from ecrs.recall.candidates import RetrievedCandidates
from ecrs.recall.channels import Interest, ScoredItems
from ecrs.recall.tables import load_candidate_generator


class RecallWork:
    """Candidates for a user, of a bundle that no product came to since."""

    def __init__(self, bundle: Bundle) -> None:
        self._encoder = bundle.encoder
        self._generator = load_candidate_generator(bundle, bundle.catalogue)
        self._clock = BundleClock(bundle.as_of)

    def user_ids(self, user: User) -> np.ndarray:
        """The user tower's input."""
        return self._encoder.users([user])

    def candidates(
        self, user: User, near: Sequence[str], distances: Sequence[float], n: int
    ) -> RetrievedCandidates:
        """At most `n`, best first; `near` are the skus nearest to the user's vector."""
        catalogue = self._generator.catalogue
        had, rows = catalogue.rows(user.aggregates.skus), catalogue.rows(near)
        interest = Interest.of(had, user.aggregates.numbers, self._clock.now())
        known = rows != NO_ID
        vector = ScoredItems(rows[known], np.array(distances, dtype=np.float32)[known])
        merged = self._generator.blend(self._generator.user_context(interest, had), vector, n)
        return RetrievedCandidates.merged(merged, [catalogue.skus[row] for row in merged.item.tolist()])


class RankWork:
    """The ranker's input for a user and candidates."""

    def __init__(self, bundle: Bundle) -> None:
        self._inputs = load_ranker_inputs(bundle)
        self._clock = BundleClock(bundle.as_of)

    def pair_ids(self, user: User, items: Sequence[Item], provenance: ProvenanceTable) -> np.ndarray:
        return self._inputs.ids(user, self._inputs.items(items), provenance, self._clock.now())

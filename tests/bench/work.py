"""The computation of recall and rank without their servers, in ECRS' own pure code; the ancestor uses it."""

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
    """Candidate generation for a user, from the items of the bundle only."""

    def __init__(self, bundle: Bundle) -> None:
        self._encoder = bundle.encoder
        self._generator = load_candidate_generator(bundle, bundle.catalogue)
        self._clock = BundleClock(bundle.as_of)

    def user_ids(self, user: User) -> np.ndarray:
        """Return the input of the user tower."""
        return self._encoder.users([user])

    def candidates(
        self, user: User, nearest: Sequence[str], distances: Sequence[float], n: int
    ) -> RetrievedCandidates:
        """Return at most `n` candidates, best first; `nearest` are the skus nearest to the user's vector."""
        catalogue = self._generator.catalogue
        user_rows, rows = catalogue.rows(user.aggregates.skus), catalogue.rows(nearest)
        interest = Interest.of(user_rows, user.aggregates.numbers, self._clock.now())
        known = rows != NO_ID
        vector = ScoredItems(rows[known], np.array(distances, dtype=np.float32)[known])
        blended = self._generator.blend(self._generator.user_context(interest, user_rows), vector, n)
        return RetrievedCandidates.merged(blended, [catalogue.skus[row] for row in blended.item.tolist()])


class RankWork:
    """Builds the ranker's input for a user and candidates."""

    def __init__(self, bundle: Bundle) -> None:
        self._inputs = load_ranker_inputs(bundle)
        self._clock = BundleClock(bundle.as_of)

    def pair_ids(self, user: User, items: Sequence[Item], provenance: ProvenanceTable) -> np.ndarray:
        return self._inputs.ids(user, self._inputs.items(items), provenance, self._clock.now())

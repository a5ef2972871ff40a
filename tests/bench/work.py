"""The work of recall and rank without the way there: ECRS' own pure code, for whoever is to do the same."""

from collections.abc import Sequence

import numpy as np

from ecrs.bundle import Bundle
from ecrs.catalogue import NO_ID
from ecrs.clock import BundleClock
from ecrs.domain import Item, User
from ecrs.rank.inputs import RankerInputs
from ecrs.ranking_features import Quantiles
from ecrs.recall.channels import Found, Interest
from ecrs.recall.domain import Candidates
from ecrs.recall.tables import load_proposer
from ecrs.sources import Sources


class RecallWork:
    """Candidates for a user, of a bundle that no product came to since."""

    def __init__(self, bundle: Bundle) -> None:
        self._encoder = bundle.encoder
        self._proposer = load_proposer(bundle, bundle.catalogue)
        self._clock = BundleClock(bundle.as_of)

    def user_ids(self, user: User) -> np.ndarray:
        """The user tower's input."""
        return self._encoder.users([user])

    def candidates(self, user: User, near: Sequence[str], distances: Sequence[float], n: int) -> Candidates:
        """At most `n`, best first; `near` are the skus nearest to the user's vector."""
        catalogue = self._proposer.catalogue
        had, rows = catalogue.rows(user.totals.skus), catalogue.rows(near)
        interest = Interest.of(had, user.totals.numbers, self._clock.now())
        known = rows != NO_ID
        vector = Found(rows[known], np.array(distances, dtype=np.float32)[known])
        merged = self._proposer.merged(self._proposer.asked(interest, had), vector, n)
        return Candidates.merged(merged, [catalogue.skus[row] for row in merged.item.tolist()])


class RankWork:
    """The ranker's input for a user and candidates."""

    def __init__(self, bundle: Bundle) -> None:
        quantiles = Quantiles.load(bundle.path / "quantiles.json")
        self._inputs = RankerInputs(bundle.encoder, bundle.catalogue, quantiles)
        self._clock = BundleClock(bundle.as_of)

    def pair_ids(self, user: User, items: Sequence[Item], sources: Sources) -> np.ndarray:
        return self._inputs.ids(user, self._inputs.records(items), sources, self._clock.now())

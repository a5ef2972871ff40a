"""Scores items with the ranking model."""

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.clock import BundleClock
from ecrs.domain.entities import User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.ranker_input import EncodedItems
from ecrs.rank.tables import load_ranker_inputs
from ecrs.rpc.deadlines import Deadline
from ecrs.serving.served_model import ServedModel, check_golden

CHECK_TIMEOUT_S = 2.0


class Ranker:
    """Scores items with the ranker of one bundle."""

    def __init__(self, bundle: Bundle, model: ServedModel) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._clock = BundleClock(bundle.as_of)
        self.inputs = load_ranker_inputs(bundle)
        self._model = model

    async def scores(
        self, user: User, items: EncodedItems, provenance: ProvenanceTable, deadline: Deadline, now: int = 0
    ) -> np.ndarray:
        """Return for each item the probability that the user buys it within the label window.

        float32, shape (N,), in the order of `items`. `now`: time of the request in Unix seconds, 0 for the
        current time. Raises the errors of `ServedModel.infer`.
        """
        ids = self.inputs.ids(user, items, provenance, self._clock.now(now))
        scores = await self._model.infer(ids, deadline.share("model", limit_s=CHECK_TIMEOUT_S))
        return scores[:, 0]

    async def check(self) -> None:
        """Raise Unavailable unless the model reproduces the trained network's output for the golden rows."""
        await check_golden(self._model, self._bundle.golden["ranker"], CHECK_TIMEOUT_S)

"""Scores by the ranking model."""

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.clock import BundleClock
from ecrs.domain.entities import User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.quantiles import Quantiles
from ecrs.features.ranker_input import EncodedItems, RankerInputBuilder
from ecrs.rpc.deadlines import Deadline
from ecrs.serving.served_model import ServedModel, check_golden

CHECK_TIMEOUT_S = 2.0


class Ranker:
    def __init__(self, bundle: Bundle, model: ServedModel) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._clock = BundleClock(bundle.as_of)
        quantiles = Quantiles.load(bundle.path / "quantiles.json")
        self.inputs = RankerInputBuilder(bundle.encoder, bundle.catalogue, quantiles)
        self._model = model

    async def scores(
        self, user: User, records: EncodedItems, provenance: ProvenanceTable, deadline: Deadline, now: int = 0
    ) -> np.ndarray:
        """For each product, in their order, the probability that the user takes it in the next weeks:
        float32, shape (N,)."""
        ids = self.inputs.ids(user, records, provenance, self._clock.now(now))
        scores = await self._model.infer(ids, deadline.share("model", limit_s=CHECK_TIMEOUT_S))
        return scores[:, 0]

    async def check(self) -> None:
        """Unavailable unless the golden rows come out of the model as at training."""
        await check_golden(self._model, self._bundle.golden["ranker"], CHECK_TIMEOUT_S)

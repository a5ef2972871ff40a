"""Scores by the ranking model."""

import numpy as np

from ecrs.bundle import Bundle
from ecrs.clock import BundleClock
from ecrs.domain import User
from ecrs.kit.budget import Budget
from ecrs.model.served import ServedModel, check_golden
from ecrs.rank.inputs import RankerInputs, Records
from ecrs.ranking_features import Quantiles
from ecrs.sources import Sources

CHECK_TIMEOUT_S = 2.0


class Ranker:
    def __init__(self, bundle: Bundle, model: ServedModel) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._clock = BundleClock(bundle.as_of)
        quantiles = Quantiles.load(bundle.path / "quantiles.json")
        self.inputs = RankerInputs(bundle.encoder, bundle.catalogue, quantiles)
        self._model = model

    async def scores(
        self, user: User, records: Records, sources: Sources, budget: Budget, now: int = 0
    ) -> np.ndarray:
        """For each product, in their order, the probability that the user takes it in the next weeks:
        float32, shape (N,)."""
        ids = self.inputs.ids(user, records, sources, self._clock.now(now))
        scores = await self._model.infer(ids, budget.stage("model", cap_s=CHECK_TIMEOUT_S))
        return scores[:, 0]

    async def check(self) -> None:
        """Unavailable unless the golden rows come out of the model as at training."""
        await check_golden(self._model, self._bundle.golden["ranker"], CHECK_TIMEOUT_S)

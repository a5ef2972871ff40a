"""Scores by the ranking model."""

from collections.abc import Sequence

from ecrs.bundle import Bundle
from ecrs.clock import BundleClock
from ecrs.domain import User
from ecrs.kit.budget import Budget
from ecrs.model.served import ServedModel, check_golden
from ecrs.rank.domain import Scored
from ecrs.rank.inputs import RankerInputs
from ecrs.ranking_features import Quantiles

CHECK_TIMEOUT_S = 2.0


class Ranker:
    def __init__(self, bundle: Bundle, model: ServedModel) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._clock = BundleClock(bundle.as_of)
        quantiles = Quantiles.load(bundle.path / "quantiles.json")
        self._inputs = RankerInputs(bundle.encoder, bundle.catalogue, quantiles)
        self._model = model

    async def scores(self, user: User, asked: Sequence[Scored], budget: Budget, now: int = 0) -> list[float]:
        """For each item, in their order, the probability that the user takes it in the next weeks."""
        ids = self._inputs.ids(user, asked, self._clock.now(now))
        scores = await self._model.infer(ids, budget.stage("model", cap_s=CHECK_TIMEOUT_S))
        return scores[:, 0].tolist()

    async def check(self) -> None:
        """Unavailable unless the golden rows come out of the model as at training."""
        await check_golden(self._model, self._bundle.golden["ranker"], CHECK_TIMEOUT_S)

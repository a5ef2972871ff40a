"""Scores by the ranking model."""

from collections.abc import Sequence

from ecrs.bundle import Bundle
from ecrs.domain import Item, User
from ecrs.kit.budget import Budget
from ecrs.model.served import ServedModel, check_golden

CHECK_TIMEOUT_S = 2.0


class Ranker:
    def __init__(self, bundle: Bundle, model: ServedModel) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._model = model

    async def scores(self, user: User, items: Sequence[Item], budget: Budget) -> list[float]:
        """A score in (0, 1) for each item, in their order; more is better."""
        ids = self._bundle.encoder.pairs(user, items)
        scores = await self._model.infer(ids, budget.stage("model", cap_s=CHECK_TIMEOUT_S))
        return scores[:, 0].tolist()

    async def check(self) -> None:
        """Unavailable unless the golden rows come out of the model as at training."""
        await check_golden(self._model, self._bundle.golden["ranker"], CHECK_TIMEOUT_S)

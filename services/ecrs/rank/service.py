"""rank on the wire."""

import grpc

from ecrs.contract.rank_pb2 import RankRequest, RankResponse
from ecrs.contract.rank_pb2_grpc import RankServiceServicer
from ecrs.kit.budget import Budget
from ecrs.rank.domain import Scored, check_batch
from ecrs.rank.ranker import Ranker
from ecrs.wire import to_item, to_user


class RankService(RankServiceServicer):
    def __init__(self, ranker: Ranker, call_timeout_s: float) -> None:
        self._ranker = ranker
        self._call_timeout_s = call_timeout_s

    async def rank_predict(self, request: RankRequest, context: grpc.aio.ServicerContext) -> RankResponse:
        """Scores in the order of the request's products: sorting is the caller's."""
        check_batch(len(request.item_infos))
        budget = Budget.of(context.time_remaining(), default_s=self._call_timeout_s)
        asked = [
            Scored(to_item(info), tuple((s.channel, s.position, s.score) for s in info.sources))
            for info in request.item_infos
        ]
        scores = await self._ranker.scores(to_user(request.user_info), asked, budget, request.now)
        return RankResponse(
            score_pairs=[
                RankResponse.ScorePair(nid=one.item.sku, score=score)
                for one, score in zip(asked, scores, strict=True)
            ],
            bundle_version=self._ranker.version,
        )

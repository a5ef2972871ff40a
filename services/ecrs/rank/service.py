"""rank on the wire."""

import grpc

from ecrs.contract.rank_pb2 import RankRequest, RankResponse
from ecrs.contract.rank_pb2_grpc import RankServiceServicer
from ecrs.kit.budget import Budget
from ecrs.rank.domain import check_batch
from ecrs.rank.ranker import Ranker
from ecrs.wire import to_items, to_user


class RankService(RankServiceServicer):
    def __init__(self, ranker: Ranker, call_timeout_s: float) -> None:
        self._ranker = ranker
        self._call_timeout_s = call_timeout_s

    async def rank_predict(self, request: RankRequest, context: grpc.aio.ServicerContext) -> RankResponse:
        """Scores in the order of the request's products: sorting is the caller's."""
        check_batch(len(request.item_infos))
        budget = Budget.of(context.time_remaining(), default_s=self._call_timeout_s)
        items = to_items(request.item_infos)
        scores = await self._ranker.scores(to_user(request.user_info), items, budget)
        return RankResponse(
            score_pairs=[
                RankResponse.ScorePair(nid=item.sku, score=score)
                for item, score in zip(items, scores, strict=True)
            ],
            bundle_version=self._ranker.version,
        )

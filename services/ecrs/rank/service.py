"""rank on the wire."""

import grpc

from ecrs.contract.rank_pb2 import RankRequest, RankResponse
from ecrs.contract.rank_pb2_grpc import RankServiceServicer
from ecrs.kit.budget import Budget
from ecrs.rank.domain import check_batch
from ecrs.rank.ranker import Ranker
from ecrs.rank.records import KnownRecords
from ecrs.sources import Sources
from ecrs.wire import check_now, to_sources, to_user


class RankService(RankServiceServicer):
    def __init__(self, ranker: Ranker, call_timeout_s: float) -> None:
        self._ranker = ranker
        self._records = KnownRecords(ranker.inputs)
        self._call_timeout_s = call_timeout_s

    async def rank_predict(self, request: RankRequest, context: grpc.aio.ServicerContext) -> RankResponse:
        """Scores in the order of the request's products: sorting is the caller's."""
        infos = request.item_infos
        check_batch(len(infos))
        check_now(request.now)
        budget = Budget.of(context.time_remaining(), default_s=self._call_timeout_s)
        said = request.HasField("sources")
        sources = to_sources(request.sources, len(infos)) if said else Sources.silent(len(infos))
        user, records = to_user(request.user_info), self._records.of(infos)
        scores = await self._ranker.scores(user, records, sources, budget, request.now)
        reply = RankResponse(bundle_version=self._ranker.version)
        for info, score in zip(infos, scores.tolist(), strict=True):
            pair = reply.score_pairs.add()
            pair.nid, pair.score = info.sku_id, score
        return reply

"""recall on the wire."""

import grpc

from ecrs.contract.item_info_pb2 import Source
from ecrs.contract.recall_pb2 import RecallRequest, RecallResponse
from ecrs.contract.recall_pb2_grpc import RecallServiceServicer
from ecrs.kit.budget import Budget
from ecrs.recall.domain import Candidate, channel_of, wanted
from ecrs.recall.retriever import Retriever
from ecrs.wire import to_user


class RecallService(RecallServiceServicer):
    def __init__(self, retriever: Retriever, call_timeout_s: float) -> None:
        self._retriever = retriever
        self._call_timeout_s = call_timeout_s

    async def recall(self, request: RecallRequest, context: grpc.aio.ServicerContext) -> RecallResponse:
        n = wanted(request.request_num)
        channel = channel_of(request.recall_type)
        user = to_user(request.user_info)
        budget = Budget.of(context.time_remaining(), default_s=self._call_timeout_s)
        found = await self._retriever.candidates(
            user, n, budget, channel=channel, now=request.now, new_only=request.new_only
        )
        return RecallResponse(
            score_pairs=[_score_pair(candidate) for candidate in found],
            bundle_version=self._retriever.version,
        )


def _score_pair(candidate: Candidate) -> RecallResponse.ScorePair:
    sources = [
        Source(channel=source.channel, position=source.position, score=source.score)
        for source in candidate.sources
    ]
    return RecallResponse.ScorePair(nid=candidate.sku, score=candidate.score, sources=sources)

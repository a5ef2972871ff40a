"""The gRPC interface of the gateway, the service `as` of the original system.

`as` is a keyword in Python, so the package is called gateway.
"""

from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceServicer
from ecrs.gateway.answer import Answer
from ecrs.gateway.query import Query
from ecrs.gateway.recommend import Gateway, recommend
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.interceptors import Context
from ecrs.wire.messages import describes_user


class ASService(ASServiceServicer):
    """Serves `as.ASService`."""

    def __init__(self, gateway: Gateway, call_timeout_s: float, reserve_s: float) -> None:
        self._gateway = gateway
        self._call_timeout_s = call_timeout_s
        self._reserve_s = reserve_s

    async def as_call(self, request: ASRequest, context: Context) -> ASResponse:
        """Recommend items to a user. Raises BadRequest naming an invalid field, NotFound as `recommend`."""
        deadline = Deadline.after(
            context.time_remaining(), default_s=self._call_timeout_s, reserve_s=self._reserve_s
        )
        described = request.user_info if describes_user(request.user_info) else None
        query = Query.of(
            request.log_id,
            request.user_id,
            described,
            request.request_num,
            new_only=request.new_only,
            now=request.now,
        )
        answer = await recommend(query, self._gateway, deadline)
        return _response(request.log_id, answer)


def _response(log_id: str, answer: Answer) -> ASResponse:
    response = ASResponse(bundle_version=answer.bundle_version, log_id=log_id, ranked=answer.ranked)
    for stage in answer.stages:
        response.stages.add(name=stage.name, took_ms=stage.took_ms, outcome=stage.outcome)
    for degraded in answer.degraded:
        response.degraded.add(stage=degraded.stage, fallback=degraded.fallback)
    for recommendation in answer.items:
        info = response.item_infos.add()  # passing the fields as keywords takes twice as long
        info.MergeFrom(recommendation.item)
        info.rank_score = recommendation.score
        for channel, position, score in recommendation.provenance:
            entry = info.provenance.add()
            entry.channel, entry.position, entry.score = channel, position, score
    return response

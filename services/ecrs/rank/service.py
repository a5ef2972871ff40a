"""The gRPC interface of rank."""

import numpy as np

from ecrs.contract.rank_pb2 import RankRequest, RankResponse
from ecrs.contract.rank_pb2_grpc import RankServiceServicer
from ecrs.domain.provenance import ProvenanceTable
from ecrs.domain.sizes import MAX_ITEMS
from ecrs.rank.item_cache import EncodedItemCache
from ecrs.rank.ranker import Ranker
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import BadRequest
from ecrs.rpc.interceptors import Context
from ecrs.wire.messages import to_provenance, to_user
from ecrs.wire.validation import check_timestamp


class RankService(RankServiceServicer):
    """Serves `RankService` with the ranker of one bundle."""

    def __init__(self, ranker: Ranker, call_timeout_s: float) -> None:
        self._ranker = ranker
        self._encoded = EncodedItemCache(ranker.inputs)
        self._call_timeout_s = call_timeout_s

    async def rank_predict(self, request: RankRequest, context: Context) -> RankResponse:
        """Return one score per item, in descending order of score.

        Items with equal scores keep the order of the request. Clients of the original system display the
        pairs in the order of the reply.
        """
        infos = request.item_infos
        if not 1 <= len(infos) <= MAX_ITEMS:
            raise BadRequest(f"item_infos: expected 1 to {MAX_ITEMS} products, got {len(infos)}")
        check_timestamp("now", request.now)
        deadline = Deadline.after(context.time_remaining(), default_s=self._call_timeout_s)
        provenance = (
            to_provenance(request.provenance, len(infos))
            if request.HasField("provenance")
            else ProvenanceTable.empty(len(infos))
        )
        user, items = to_user(request.user_info), self._encoded.items(infos)
        scores = await self._ranker.scores(user, items, provenance, deadline, request.now)
        reply = RankResponse(bundle_version=self._ranker.version)
        order = np.argsort(-scores, kind="stable")
        for row, score in zip(order.tolist(), scores[order].tolist(), strict=True):
            reply.score_pairs.add(nid=infos[row].sku_id, score=score)
        return reply

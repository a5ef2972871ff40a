"""The stages' services over gRPC."""

from collections.abc import Sequence

from ecrs.contract.cm_pb2 import CMRequest
from ecrs.contract.cm_pb2_grpc import CMServiceStub
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.rank_pb2 import RankRequest
from ecrs.contract.rank_pb2_grpc import RankServiceStub
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.recall_pb2_grpc import RecallServiceStub
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.um_pb2_grpc import UMServiceStub
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.gateway.domain import Candidates, Known, Query
from ecrs.gateway.peer import Peer
from ecrs.kit.errors import Fault
from ecrs.wire import from_sources, to_sources


class RemoteUsers:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = UMServiceStub(peer.channel)

    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> UserInfo:
        request = UserModelRequest(log_id=log_id, user_id=user_id)
        reply = await self._peer.call(self._stub.um_call, request, timeout_s)
        return reply.user_info


class RemoteRecall:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = RecallServiceStub(peer.channel)

    async def candidates(self, user: UserInfo, n: int, query: Query, timeout_s: float) -> Candidates:
        request = RecallRequest(
            log_id=query.log_id,
            user_info=user,
            request_num=n,
            new_only=query.new_only,
            now=query.now,
        )
        reply = await self._peer.call(self._stub.recall, request, timeout_s)
        skus = [pair.nid for pair in reply.score_pairs]
        sources = to_sources(reply.sources, len(skus))
        return Candidates(skus, sources, reply.bundle_version, tuple(reply.missing_channels))


class RemoteItems:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = CMServiceStub(peer.channel)

    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, ItemInfo]:
        request = CMRequest(log_id=log_id, item_ids=skus)
        reply = await self._peer.call(self._stub.cm_call, request, timeout_s)
        return {info.sku_id: info for info in reply.item_infos}


class RemoteRank:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = RankServiceStub(peer.channel)

    async def scores(self, user: UserInfo, known: Known, query: Query, timeout_s: float) -> Sequence[float]:
        request = RankRequest(
            log_id=query.log_id,
            user_info=user,
            item_infos=known.items,
            sources=from_sources(known.sources),
            now=query.now,
        )
        reply = await self._peer.call(self._stub.rank_predict, request, timeout_s)
        scores = [pair.score for pair in reply.score_pairs]
        if len(scores) != len(known.items):
            raise Fault(f"rank gave {len(scores)} scores for {len(known.items)} items")
        return scores

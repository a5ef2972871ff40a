"""Interfaces of the stages of a request, and their implementations over gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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
from ecrs.gateway.answer import CandidateItems, Candidates
from ecrs.gateway.query import Query
from ecrs.rpc.backend import Backend
from ecrs.rpc.errors import BadRequest, MalformedData
from ecrs.wire.messages import from_provenance, to_provenance


class UserStage(Protocol):
    """Looks up a user. Every stage raises a Fault if it fails."""

    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> UserInfo:
        """Return the stored user. Raises NotFound, with um's text, for an unknown id."""


class RecallStage(Protocol):
    """Retrieves candidates."""

    async def candidates(self, user: UserInfo, n: int, query: Query, timeout_s: float) -> Candidates:
        """Return at most `n` candidates for the user, best first."""


class ItemStage(Protocol):
    """Looks up item records."""

    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, ItemInfo]:
        """Return the records of the known `skus`, by sku."""


class RankStage(Protocol):
    """Scores candidates."""

    async def scores(
        self, user: UserInfo, candidates: CandidateItems, query: Query, timeout_s: float
    ) -> Sequence[float]:
        """Return one score per candidate, in the order of the candidates."""


@dataclass(frozen=True)
class Stages:
    """The four stages of a request."""

    users: UserStage
    recall: RecallStage
    items: ItemStage
    rank: RankStage


class RemoteUserStage:
    """`UserStage` by the service um."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stub = UMServiceStub(backend.channel)

    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> UserInfo:
        """Call `um_call`."""
        request = UserModelRequest(log_id=log_id, user_id=user_id)
        reply = await self._backend.call(self._stub.um_call, request, timeout_s)
        return reply.user_info


class RemoteRecallStage:
    """`RecallStage` by the service recall."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stub = RecallServiceStub(backend.channel)

    async def candidates(self, user: UserInfo, n: int, query: Query, timeout_s: float) -> Candidates:
        """Call `recall` for all channels. Raises MalformedData for invalid provenance."""
        request = RecallRequest(
            log_id=query.log_id,
            user_info=user,
            request_num=n,
            new_only=query.new_only,
            now=query.now,
        )
        reply = await self._backend.call(self._stub.recall, request, timeout_s)
        skus = [pair.nid for pair in reply.score_pairs]
        try:
            provenance = to_provenance(reply.provenance, len(skus))
        except BadRequest as error:
            raise MalformedData(f"the reply of recall is malformed: {error.text}") from error
        return Candidates(skus, provenance, reply.bundle_version, tuple(reply.missing_channels))


class RemoteItemStage:
    """`ItemStage` by the service cm."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stub = CMServiceStub(backend.channel)

    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, ItemInfo]:
        """Call `cm_call`. Raises NotFound if all skus are unknown."""
        request = CMRequest(log_id=log_id, item_ids=skus)
        reply = await self._backend.call(self._stub.cm_call, request, timeout_s)
        return {info.sku_id: info for info in reply.item_infos}


class RemoteRankStage:
    """`RankStage` by the service rank."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stub = RankServiceStub(backend.channel)

    async def scores(
        self, user: UserInfo, candidates: CandidateItems, query: Query, timeout_s: float
    ) -> Sequence[float]:
        """Call `rank_predict`. Raises MalformedData if a candidate has no score in the reply."""
        request = RankRequest(
            log_id=query.log_id,
            user_info=user,
            item_infos=candidates.items,
            provenance=from_provenance(candidates.provenance),
            now=query.now,
        )
        reply = await self._backend.call(self._stub.rank_predict, request, timeout_s)
        by_sku = {pair.nid: pair.score for pair in reply.score_pairs}
        try:
            return [by_sku[item.sku_id] for item in candidates.items]
        except KeyError as error:
            raise MalformedData(f"rank returned no score for item {error}") from error

"""The gRPC interface of recall."""

from ecrs.contract.recall_pb2 import (
    RecallRequest,
    RecallResponse,
    RemoveVectorsRequest,
    UpsertVectorsRequest,
    VectorsResponse,
)
from ecrs.contract.recall_pb2_grpc import RecallServiceServicer
from ecrs.metrics import CANDIDATES_FOUND, count_channels
from ecrs.recall.candidates import ALL_CHANNELS, candidate_count, requested_channel
from ecrs.recall.retriever import Retriever
from ecrs.recall.vector_updates import VectorUpdater
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.interceptors import Context
from ecrs.wire.messages import from_provenance, to_user
from ecrs.wire.validation import check_batch, check_timestamp


class RecallService(RecallServiceServicer):
    """Serves `recall.RecallService`: candidates for users, and changes of the item vectors."""

    def __init__(self, retriever: Retriever, updates: VectorUpdater, call_timeout_s: float) -> None:
        self._retriever = retriever
        self._updates = updates
        self._call_timeout_s = call_timeout_s
        for channel in ALL_CHANNELS:
            CANDIDATES_FOUND.labels(
                channel
            )  # so that the metric of a channel that finds nothing exists, as 0

    async def recall(self, request: RecallRequest, context: Context) -> RecallResponse:
        """Return the candidates for a user, best first. Raises BadRequest naming an invalid field."""
        n = candidate_count(request.request_num)
        channel = requested_channel(request.recall_type)
        check_timestamp("now", request.now)
        user = to_user(request.user_info)
        deadline = Deadline.after(context.time_remaining(), default_s=self._call_timeout_s)
        found = await self._retriever.candidates(
            user, n, deadline, channel=channel, now=request.now, new_only=request.new_only
        )
        count_channels(CANDIDATES_FOUND, found.provenance.counts())
        reply = RecallResponse(
            provenance=from_provenance(found.provenance),
            bundle_version=self._retriever.version,
            missing_channels=found.missing,
        )
        for sku, score in zip(found.skus, found.score.tolist(), strict=True):
            pair = reply.score_pairs.add()
            pair.nid, pair.score = sku, score
        return reply

    async def upsert_vectors(self, request: UpsertVectorsRequest, context: Context) -> VectorsResponse:
        """Add or replace the vectors of items; called by cm."""
        skus = [pair.sku_id for pair in request.vectors]
        check_batch("vectors", skus)
        deadline = Deadline.after(context.time_remaining(), default_s=self._call_timeout_s)
        vectors = [pair.vector for pair in request.vectors]
        categories = [pair.cate for pair in request.vectors]
        await self._updates.upsert(request.bundle_version, skus, vectors, categories, deadline)
        return VectorsResponse(bundle_version=self._updates.version)

    async def remove_vectors(self, request: RemoveVectorsRequest, context: Context) -> VectorsResponse:
        """Remove the vectors of items; called by cm."""
        check_batch("item_ids", request.item_ids)
        deadline = Deadline.after(context.time_remaining(), default_s=self._call_timeout_s)
        await self._updates.remove(request.bundle_version, list(request.item_ids), deadline)
        return VectorsResponse(bundle_version=self._updates.version)

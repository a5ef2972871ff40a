"""recall, which keeps the vectors, over gRPC."""

from collections.abc import Sequence

import grpc
import numpy as np

from ecrs.contract.recall_pb2 import RemoveVectorsRequest, UpsertVectorsRequest
from ecrs.contract.recall_pb2_grpc import RecallServiceStub
from ecrs.domain.entities import Item
from ecrs.rpc.client import call


class RecallVectorUpdates:
    """The `Vectors` of `ecrs.cm.changes`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = RecallServiceStub(channel)

    async def upsert(
        self, version: str, items: Sequence[Item], vectors: np.ndarray, log_id: str, timeout_s: float
    ) -> None:
        pairs = [
            UpsertVectorsRequest.ItemVector(sku_id=item.sku, vector=vector, cate=item.category)
            for item, vector in zip(items, vectors.tolist(), strict=True)
        ]
        request = UpsertVectorsRequest(log_id=log_id, bundle_version=version, vectors=pairs)
        await call("recall", self._stub.upsert_vectors, request, timeout_s)

    async def remove(self, version: str, skus: Sequence[str], log_id: str, timeout_s: float) -> None:
        request = RemoveVectorsRequest(log_id=log_id, bundle_version=version, item_ids=skus)
        await call("recall", self._stub.remove_vectors, request, timeout_s)

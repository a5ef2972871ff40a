"""Sends changes of item vectors to recall over gRPC."""

from collections.abc import Sequence

import grpc
import numpy as np

from ecrs.contract.recall_pb2 import RemoveVectorsRequest, UpsertVectorsRequest
from ecrs.contract.recall_pb2_grpc import RecallServiceStub
from ecrs.domain.entities import Item
from ecrs.rpc.authorization import write_metadata
from ecrs.rpc.client import call


class RecallVectorUpdates:
    """`VectorUpdates` of `ecrs.cm.item_changes` by the service recall, which accepts `write_token`."""

    def __init__(self, channel: grpc.aio.Channel, write_token: str | None) -> None:
        self._stub = RecallServiceStub(channel)
        self._metadata = write_metadata(write_token)

    async def upsert(
        self, version: str, items: Sequence[Item], vectors: np.ndarray, log_id: str, timeout_s: float
    ) -> None:
        """Call `upsert_vectors`; recall uses each item's category if the item is new to its bundle."""
        pairs = [
            UpsertVectorsRequest.ItemVector(sku_id=item.sku, vector=vector, cate=item.category)
            for item, vector in zip(items, vectors.tolist(), strict=True)
        ]
        request = UpsertVectorsRequest(log_id=log_id, bundle_version=version, vectors=pairs)
        await call("recall", self._stub.upsert_vectors, request, timeout_s, self._metadata)

    async def remove(self, version: str, skus: Sequence[str], log_id: str, timeout_s: float) -> None:
        """Call `remove_vectors`."""
        request = RemoveVectorsRequest(log_id=log_id, bundle_version=version, item_ids=skus)
        await call("recall", self._stub.remove_vectors, request, timeout_s, self._metadata)

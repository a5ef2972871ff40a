"""cm on the wire."""

import grpc

from ecrs.cm.changes import Changes
from ecrs.cm.records import Records
from ecrs.contract.cm_pb2 import (
    ChangeResponse,
    CMRequest,
    CMResponse,
    PutItemsRequest,
    RemoveItemsRequest,
    SetStockRequest,
)
from ecrs.contract.cm_pb2_grpc import CMServiceServicer
from ecrs.kit.budget import Budget
from ecrs.kit.errors import BadRequest, NotFound
from ecrs.seeded import Seeded
from ecrs.wire import check_batch, check_skus, to_new_items

MAX_ITEMS = 1000


class CMService(CMServiceServicer):
    def __init__(self, records: Records, seeded: Seeded, changes: Changes, call_timeout_s: float) -> None:
        self._records = records
        self._seeded = seeded
        self._changes = changes
        self._call_timeout_s = call_timeout_s

    async def cm_call(self, request: CMRequest, context: grpc.aio.ServicerContext) -> CMResponse:
        """The known products in the order asked; `missing_ids` names the others."""
        asked = list(request.item_ids)
        if not 1 <= len(asked) <= MAX_ITEMS:
            raise BadRequest(f"item_ids: expected 1 to {MAX_ITEMS} ids, got {len(asked)}")
        check_skus("item_ids", asked)
        budget = self._budget(context)
        found = await self._records.of(asked, budget.stage("redis", cap_s=self._call_timeout_s))
        known = [info for info in found if info is not None]
        if not known:
            raise NotFound(f"CM server get item_info from redis fail. ({CMRequest(item_ids=asked)})")
        return CMResponse(
            item_infos=known,
            missing_ids=[sku for sku, info in zip(asked, found, strict=True) if info is None],
            bundle_version=self._seeded.version,
        )

    async def put_items(self, request: PutItemsRequest, context: grpc.aio.ServicerContext) -> ChangeResponse:
        """All of the products or, at a fault, none that cm knows of."""
        items = to_new_items(request.item_infos)
        await self._changes.put(items, request.log_id, self._budget(context))
        return self._done(len(items), [])

    async def remove_items(
        self, request: RemoveItemsRequest, context: grpc.aio.ServicerContext
    ) -> ChangeResponse:
        asked = list(request.item_ids)
        check_batch("item_ids", asked)
        missing = await self._changes.remove(asked, request.log_id, self._budget(context))
        return self._done(len(asked), missing)

    async def set_stock(self, request: SetStockRequest, context: grpc.aio.ServicerContext) -> ChangeResponse:
        asked = list(request.item_ids)
        check_batch("item_ids", asked)
        missing = await self._changes.set_stock(asked, self._budget(context), in_stock=request.in_stock)
        return self._done(len(asked), missing)

    def _budget(self, context: grpc.aio.ServicerContext) -> Budget:
        return Budget.of(context.time_remaining(), default_s=self._call_timeout_s)

    def _done(self, asked: int, missing: list[str]) -> ChangeResponse:
        return ChangeResponse(
            done=asked - len(missing), missing_ids=missing, bundle_version=self._seeded.version
        )

"""cm on the wire."""

from ecrs.cm.item_cache import ItemCache
from ecrs.cm.item_changes import ItemChanges
from ecrs.contract.cm_pb2 import (
    ChangeResponse,
    CMRequest,
    CMResponse,
    PutItemsRequest,
    RemoveItemsRequest,
    SetStockRequest,
)
from ecrs.contract.cm_pb2_grpc import CMServiceServicer
from ecrs.domain.sizes import MAX_ITEMS
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import BadRequest, NotFound
from ecrs.rpc.interceptors import Context
from ecrs.storage.seeded_version import SeededVersion
from ecrs.wire.messages import to_new_items
from ecrs.wire.validation import check_batch, check_skus


class CMService(CMServiceServicer):
    def __init__(
        self, records: ItemCache, seeded: SeededVersion, changes: ItemChanges, call_timeout_s: float
    ) -> None:
        self._records = records
        self._seeded = seeded
        self._changes = changes
        self._call_timeout_s = call_timeout_s

    async def cm_call(self, request: CMRequest, context: Context) -> CMResponse:
        """The known products in the order asked; `missing_ids` names the others."""
        asked = list(request.item_ids)
        if not 1 <= len(asked) <= MAX_ITEMS:
            raise BadRequest(f"item_ids: expected 1 to {MAX_ITEMS} ids, got {len(asked)}")
        check_skus("item_ids", asked)
        deadline = self._deadline(context)
        found = await self._records.items(asked, deadline.share("redis", limit_s=self._call_timeout_s))
        known = [info for info in found if info is not None]
        if not known:
            raise NotFound(f"CM server get item_info from redis fail. ({CMRequest(item_ids=asked)})")
        return CMResponse(
            item_infos=known,
            missing_ids=[sku for sku, info in zip(asked, found, strict=True) if info is None],
            bundle_version=self._seeded.version,
        )

    async def put_items(self, request: PutItemsRequest, context: Context) -> ChangeResponse:
        """All of the products or, at a fault, none that cm knows of."""
        items = to_new_items(request.item_infos)
        await self._changes.put(items, request.log_id, self._deadline(context))
        return self._done(len(items), [])

    async def remove_items(self, request: RemoveItemsRequest, context: Context) -> ChangeResponse:
        asked = list(request.item_ids)
        check_batch("item_ids", asked)
        missing = await self._changes.remove(asked, request.log_id, self._deadline(context))
        return self._done(len(asked), missing)

    async def set_stock(self, request: SetStockRequest, context: Context) -> ChangeResponse:
        asked = list(request.item_ids)
        check_batch("item_ids", asked)
        missing = await self._changes.set_stock(asked, self._deadline(context), in_stock=request.in_stock)
        return self._done(len(asked), missing)

    def _deadline(self, context: Context) -> Deadline:
        return Deadline.after(context.time_remaining(), default_s=self._call_timeout_s)

    def _done(self, asked: int, missing: list[str]) -> ChangeResponse:
        return ChangeResponse(
            done=asked - len(missing), missing_ids=missing, bundle_version=self._seeded.version
        )

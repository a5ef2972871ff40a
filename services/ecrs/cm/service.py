"""The gRPC interface of cm."""

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
    """Serves `cm.CMService`: lookups from the item cache, changes by `ItemChanges`."""

    def __init__(
        self, records: ItemCache, seeded: SeededVersion, changes: ItemChanges, call_timeout_s: float
    ) -> None:
        self._records = records
        self._seeded = seeded
        self._changes = changes
        self._call_timeout_s = call_timeout_s

    async def cm_call(self, request: CMRequest, context: Context) -> CMResponse:
        """Return the known items in the order of the request, and the unknown ids as `missing_ids`.

        Raises NotFound, with the original system's text, if all ids are unknown.
        """
        skus = list(request.item_ids)
        if not 1 <= len(skus) <= MAX_ITEMS:
            raise BadRequest(f"item_ids: expected 1 to {MAX_ITEMS} ids, got {len(skus)}")
        check_skus("item_ids", skus)
        deadline = self._deadline(context)
        records = await self._records.items(skus, deadline.share("redis", limit_s=self._call_timeout_s))
        known = [info for info in records if info is not None]
        if not known:
            raise NotFound(f"CM server get item_info from redis fail. ({CMRequest(item_ids=skus)})")
        return CMResponse(
            item_infos=known,
            missing_ids=[sku for sku, info in zip(skus, records, strict=True) if info is None],
            bundle_version=self._seeded.version,
        )

    async def put_items(self, request: PutItemsRequest, context: Context) -> ChangeResponse:
        """Add or replace all items of the request, or none of them.

        After an error, vectors or an unconfirmed write may remain; repeating the call repairs that.
        """
        items = to_new_items(request.item_infos)
        await self._changes.put(items, request.log_id, await self._start_change(context))
        return self._done(len(items), [])

    async def remove_items(self, request: RemoveItemsRequest, context: Context) -> ChangeResponse:
        """Remove items; the reply names the unknown ones."""
        skus = list(request.item_ids)
        check_batch("item_ids", skus)
        missing = await self._changes.remove(skus, request.log_id, await self._start_change(context))
        return self._done(len(skus), missing)

    async def set_stock(self, request: SetStockRequest, context: Context) -> ChangeResponse:
        """Mark items as in stock or out of stock; the reply names the unknown ones."""
        skus = list(request.item_ids)
        check_batch("item_ids", skus)
        missing = await self._changes.set_stock(
            skus, await self._start_change(context), in_stock=request.in_stock
        )
        return self._done(len(skus), missing)

    async def _start_change(self, context: Context) -> Deadline:
        """Return the deadline of a change. Raises NotSeeded while the store holds no bundle to change."""
        deadline = self._deadline(context)
        await self._seeded.read(deadline.share("redis", limit_s=self._call_timeout_s))
        return deadline

    def _deadline(self, context: Context) -> Deadline:
        return Deadline.after(context.time_remaining(), default_s=self._call_timeout_s)

    def _done(self, requested: int, missing: list[str]) -> ChangeResponse:
        return ChangeResponse(
            done=requested - len(missing), missing_ids=missing, bundle_version=self._seeded.version
        )

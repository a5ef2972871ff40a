"""cm on the wire."""

import grpc

from ecrs.contract.cm_pb2 import CMRequest, CMResponse
from ecrs.contract.cm_pb2_grpc import CMServiceServicer
from ecrs.kit.budget import Budget
from ecrs.kit.errors import BadRequest, NotFound
from ecrs.profiles import Profiles
from ecrs.seeded import Seeded
from ecrs.wire import from_item

MAX_ITEMS = 1000


class CMService(CMServiceServicer):
    def __init__(self, profiles: Profiles, seeded: Seeded, call_timeout_s: float) -> None:
        self._profiles = profiles
        self._seeded = seeded
        self._call_timeout_s = call_timeout_s

    async def cm_call(self, request: CMRequest, context: grpc.aio.ServicerContext) -> CMResponse:
        """The known products in the order asked; `missing_ids` names the others."""
        asked = list(request.item_ids)
        if not 1 <= len(asked) <= MAX_ITEMS:
            raise BadRequest(f"item_ids: expected 1 to {MAX_ITEMS} ids, got {len(asked)}")
        budget = Budget.of(context.time_remaining(), default_s=self._call_timeout_s)
        found = await self._profiles.items(asked, budget.stage("redis", cap_s=self._call_timeout_s))
        known = [item for item in found if item is not None]
        if not known:
            raise NotFound(f"CM server get item_info from redis fail. ({CMRequest(item_ids=asked)})")
        return CMResponse(
            item_infos=[from_item(item) for item in known],
            missing_ids=[sku for sku, item in zip(asked, found, strict=True) if item is None],
            bundle_version=self._seeded.version,
        )

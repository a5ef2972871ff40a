"""um on the wire."""

import grpc

from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.um_pb2_grpc import UMServiceServicer
from ecrs.kit.budget import Budget
from ecrs.kit.errors import NotFound
from ecrs.profiles import Profiles
from ecrs.seeded import Seeded
from ecrs.wire import check_user_id, from_user


class UMService(UMServiceServicer):
    def __init__(self, profiles: Profiles, seeded: Seeded, call_timeout_s: float) -> None:
        self._profiles = profiles
        self._seeded = seeded
        self._call_timeout_s = call_timeout_s

    async def um_call(
        self, request: UserModelRequest, context: grpc.aio.ServicerContext
    ) -> UserModelResponse:
        check_user_id(request.user_id)
        budget = Budget.of(context.time_remaining(), default_s=self._call_timeout_s)
        user = await self._profiles.user(request.user_id, budget.stage("redis", cap_s=self._call_timeout_s))
        if user is None:
            asked = UserModelRequest(user_id=request.user_id)
            raise NotFound(f"UM server get user_info from redis fail. ({asked})")
        return UserModelResponse(user_info=from_user(user), bundle_version=self._seeded.version)

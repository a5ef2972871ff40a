"""The gRPC interface of um."""

from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.um_pb2_grpc import UMServiceServicer
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import NotFound
from ecrs.rpc.interceptors import Context
from ecrs.storage.profiles import ProfileStore
from ecrs.storage.seeded_version import SeededVersion
from ecrs.wire.messages import from_user
from ecrs.wire.validation import check_user_id


class UMService(UMServiceServicer):
    """Serves `um.UMService` from the profile store."""

    def __init__(self, profiles: ProfileStore, seeded: SeededVersion, call_timeout_s: float) -> None:
        self._profiles = profiles
        self._seeded = seeded
        self._call_timeout_s = call_timeout_s

    async def um_call(self, request: UserModelRequest, context: Context) -> UserModelResponse:
        """Return the stored user. Raises NotFound, with the original system's text, for an unknown id."""
        check_user_id(request.user_id)
        deadline = Deadline.after(context.time_remaining(), default_s=self._call_timeout_s)
        user = await self._profiles.user(
            request.user_id, deadline.share("redis", limit_s=self._call_timeout_s)
        )
        if user is None:
            shown = UserModelRequest(user_id=request.user_id)  # the id alone, as in the original
            raise NotFound(f"UM server get user_info from redis fail. ({shown})")
        return UserModelResponse(user_info=from_user(user), bundle_version=self._seeded.version)

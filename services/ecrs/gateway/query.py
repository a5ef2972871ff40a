"""A validated request to the gateway, and how it combines with the stored user. No I/O."""

from dataclasses import dataclass, replace

from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.aggregates import Aggregates
from ecrs.domain.entities import HISTORY_LENGTH, NEW_USER_IDS
from ecrs.domain.sizes import DEFAULT_ITEMS, MAX_ITEMS
from ecrs.rpc.errors import BadRequest
from ecrs.wire.limits import USER_BYTES
from ecrs.wire.messages import from_user, to_user
from ecrs.wire.validation import check_timestamp, check_user_id


@dataclass(frozen=True, slots=True)
class Query:
    """A request for `n` recommendations.

    `user_id` is empty for a new user. `described` is the request's own description of the user, or None.
    `new_only` leaves out items that the user bought before. `now` is in Unix seconds, 0 for the current time.
    """

    log_id: str
    user_id: str
    described: UserInfo | None
    n: int
    new_only: bool = False
    now: int = 0

    @classmethod
    def of(
        cls,
        log_id: str,
        user_id: str,
        described: UserInfo | None,
        request_num: int,
        *,
        new_only: bool = False,
        now: int = 0,
    ) -> "Query":
        """Validate the fields of a request. Raises BadRequest naming the invalid field."""
        check_user_id(user_id)
        check_timestamp("now", now)
        if described is not None:
            if (size := described.ByteSize()) > USER_BYTES:
                raise BadRequest(f"user_info: at most {USER_BYTES} bytes, got {size}")
            to_user(described)  # raises BadRequest for invalid history or aggregates
        user_id = "" if user_id in NEW_USER_IDS else user_id
        if not user_id and described is None:
            raise BadRequest("the request names no user: set user_id or user_info")
        if request_num > MAX_ITEMS:
            raise BadRequest(f"request_num: at most {MAX_ITEMS}, got {request_num}")
        return cls(log_id, user_id, described, request_num or DEFAULT_ITEMS, new_only, now)


def with_session(stored: UserInfo, described: UserInfo | None) -> UserInfo:
    """Return the stored user, with the interactions of the request added before the stored ones."""
    if described is None or not described.history:
        return stored
    user, session = to_user(stored), to_user(described).history
    history = (session + user.history)[:HISTORY_LENGTH]
    return from_user(replace(user, history=history, aggregates=user.aggregates.plus(session)))


def with_aggregates(described: UserInfo) -> UserInfo:
    """Return the user that a request describes; missing aggregates are computed from the history."""
    if described.aggregates.sku_ids or not described.history:
        return described
    user = to_user(described)
    return from_user(replace(user, aggregates=Aggregates().plus(user.history)))

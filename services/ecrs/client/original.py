"""The original's command line, and its output: protobuf text.

client.py as 8888                              an old user, by id
client.py as 5.0 1.0 3.0 11.0 120.0 741.0      a new user: age sex city_level province city county
client.py um 8888
client.py cm 99654,12048
client.py recall 8888
client.py rank                                 user 1 and item 1, as the original sends them
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import CMRequest
from ecrs.contract.cm_pb2_grpc import CMServiceStub
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.rank_pb2 import RankRequest
from ecrs.contract.rank_pb2_grpc import RankServiceStub
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.recall_pb2_grpc import RecallServiceStub
from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.um_pb2_grpc import UMServiceStub
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.settings import TargetSettings

TIMEOUT_S = 5.0
PROFILE = ("age", "sex", "city_level", "province", "city", "country")

ORIGINAL_USER = UserInfo(
    user_id="1", age="5.0", sex="1.0", city_level="5.0", province="20.0", city="176.0", country="1933.0"
)
ORIGINAL_ITEM = ItemInfo(sku_id="1", brand="3456", shopid="6980", cate="70")


class UsageError(Exception):
    """The arguments are not one of the commands above."""


def run(arguments: Sequence[str], targets: TargetSettings) -> Any:
    """The reply, a protobuf message, to one command. Raises UsageError and grpc.RpcError."""
    commands: dict[str, Callable[[list[str], TargetSettings], Any]] = {
        "as": _as,
        "um": _um,
        "cm": _cm,
        "recall": _recall,
        "rank": _rank,
    }
    if not arguments or arguments[0] not in commands:
        raise UsageError
    return commands[arguments[0]](list(arguments[1:]), targets)


def _as(values: list[str], targets: TargetSettings) -> Any:
    if len(values) == 1:
        request = ASRequest(user_id=values[0])
    elif len(values) == len(PROFILE):
        request = ASRequest(user_info=_profile(values))
    else:
        raise UsageError
    return _call(targets.gateway_target, ASServiceStub, "as_call", request)


def _um(values: list[str], targets: TargetSettings) -> Any:
    return _call(targets.um_target, UMServiceStub, "um_call", UserModelRequest(user_id=_one(values)))


def _cm(values: list[str], targets: TargetSettings) -> Any:
    return _call(targets.cm_target, CMServiceStub, "cm_call", CMRequest(item_ids=_one(values).split(",")))


def _recall(values: list[str], targets: TargetSettings) -> Any:
    known = _um(values, targets)
    if known.error.code != 200:
        return known
    request = RecallRequest(user_info=known.user_info)
    return _call(targets.recall_target, RecallServiceStub, "recall", request)


def _rank(values: list[str], targets: TargetSettings) -> Any:
    if values:
        raise UsageError
    request = RankRequest(user_info=ORIGINAL_USER, item_infos=[ORIGINAL_ITEM])
    return _call(targets.rank_target, RankServiceStub, "rank_predict", request)


def _profile(values: list[str]) -> UserInfo:
    info = UserInfo()
    for name, value in zip(PROFILE, values, strict=True):
        setattr(info, name, value)
    return info


def _one(values: list[str]) -> str:
    if len(values) != 1:
        raise UsageError
    return values[0]


def _call(target: str, stub: Callable[[grpc.Channel], Any], method: str, request: Any) -> Any:
    with grpc.insecure_channel(target) as channel:
        return getattr(stub(channel), method)(request, timeout=TIMEOUT_S, wait_for_ready=True)


def _for_people(reply: Any) -> Any:
    """The reply without the aggregates of a user, which only services read."""
    if isinstance(reply, UserModelResponse):
        reply.user_info.ClearField("aggregates")
    return reply


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the reply: exit 0 with one of any kind, 1 without, 2 for arguments that are no command."""
    try:
        reply = run(sys.argv[1:] if arguments is None else arguments, TargetSettings())
        print(_for_people(reply))
    except UsageError:
        print(__doc__, file=sys.stderr)
        raise SystemExit(2) from None
    except grpc.RpcError as error:
        print(f"no answer: {error.code().name}: {error.details()}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

"""The original system's command line, `client.py`: calls one of the services and prints its reply."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from ecrs.client.replies import as_json, as_text
from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import CMRequest
from ecrs.contract.cm_pb2_grpc import CMServiceStub
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.rank_pb2 import RankRequest
from ecrs.contract.rank_pb2_grpc import RankServiceStub
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.recall_pb2_grpc import RecallServiceStub
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.um_pb2_grpc import UMServiceStub
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.settings import TargetSettings

USAGE = """client.py COMMAND [--full] [--json]

client.py as 8888                            recommend for a known user, by id
client.py as 5.0 1.0 3.0 11.0 120.0 741.0    recommend for a new user: age sex city_level province city county
client.py um 8888                            show a user
client.py cm 99654,12048                     show items
client.py recall 8888                        show the candidates for a known user
client.py rank                               score item 1 for user 1, as the original does"""

FULL_HELP = "print every field, not only the original's"
JSON_HELP = "print one JSON object instead of protobuf text"

TIMEOUT_S = 5.0

ORIGINAL_USER = UserInfo(
    user_id="1", age="5.0", sex="1.0", city_level="5.0", province="20.0", city="176.0", country="1933.0"
)
ORIGINAL_ITEM = ItemInfo(sku_id="1", brand="3456", shopid="6980", cate="70")


class UsageError(Exception):
    """The values do not fit the command; the text says what it takes."""


def ask(command: str, values: Sequence[str], targets: TargetSettings) -> Any:
    """Send a command to its service and return the reply, a protobuf message.

    Raises UsageError for values that do not fit the command, and grpc.RpcError if there is no reply.
    """
    return _COMMANDS[command](list(values), targets)


def _as(values: list[str], targets: TargetSettings) -> Any:
    match values:
        case [user_id]:
            request = ASRequest(user_id=user_id)
        case [age, sex, city_level, province, city, county]:
            profile = UserInfo(
                age=age, sex=sex, city_level=city_level, province=province, city=city, country=county
            )
            request = ASRequest(user_info=profile)
        case _:
            raise UsageError("as takes a user id, or age sex city_level province city county")
    return _call(targets.gateway_target, ASServiceStub, "as_call", request)


def _um(values: list[str], targets: TargetSettings) -> Any:
    return _call(targets.um_target, UMServiceStub, "um_call", UserModelRequest(user_id=_only(values)))


def _cm(values: list[str], targets: TargetSettings) -> Any:
    skus = _only(values).split(",")
    return _call(targets.cm_target, CMServiceStub, "cm_call", CMRequest(item_ids=skus))


def _recall(values: list[str], targets: TargetSettings) -> Any:
    um_reply = _um(values, targets)
    if um_reply.error.code != 200:
        return um_reply
    request = RecallRequest(user_info=um_reply.user_info)
    return _call(targets.recall_target, RecallServiceStub, "recall", request)


def _rank(values: list[str], targets: TargetSettings) -> Any:
    if values:
        raise UsageError("rank takes no values")
    request = RankRequest(user_info=ORIGINAL_USER, item_infos=[ORIGINAL_ITEM])
    return _call(targets.rank_target, RankServiceStub, "rank_predict", request)


def _only(values: list[str]) -> str:
    if len(values) != 1:
        raise UsageError(f"expected one value, got {len(values)}")
    return values[0]


def _call(target: str, stub: Callable[[grpc.Channel], Any], method: str, request: Any) -> Any:
    with grpc.insecure_channel(target) as channel:
        return getattr(stub(channel), method)(request, timeout=TIMEOUT_S, wait_for_ready=True)


_COMMANDS: dict[str, Callable[[list[str], TargetSettings], Any]] = {
    "as": _as,
    "um": _um,
    "cm": _cm,
    "recall": _recall,
    "rank": _rank,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and print the reply.

    The exit status is 0 for a reply of any kind, including an error reply, 1 without a reply, and 2 for a
    usage error. `arguments` default to those of the process.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    try:
        reply = ask(options.command, options.values, TargetSettings())
    except UsageError as error:
        parser.error(str(error))
    except grpc.RpcError as error:
        print(f"no answer: {error.code().name}: {error.details()}", file=sys.stderr)
        raise SystemExit(1) from None
    print(as_json(reply, full=options.full) if options.json else as_text(reply, full=options.full))


def _parser() -> argparse.ArgumentParser:
    """Return the parser. Its options may be anywhere; `-1`, an unknown value, is parsed as a number."""
    parser = argparse.ArgumentParser(prog="client.py", usage=USAGE, allow_abbrev=False)
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("values", nargs="*")
    parser.add_argument("--full", action="store_true", help=FULL_HELP)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


if __name__ == "__main__":
    main()

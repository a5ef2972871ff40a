"""All five services, and input that they should never get.

The law, each time: a valid answer, or an error that says what is wrong and shows no internals; in
bounded time; and the next ordinary request is answered as if nothing had been.
`make fuzz` looks longer.
"""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from ecrs.bundle import Bundle
from tests.hostile import faults
from tests.platform import (
    AS,
    CM,
    METHODS,
    PROBES,
    UM,
    Platform,
    types,
)

OK, TOO_MUCH = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def platform(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        yield platform
        for method in PROBES:
            platform.answers_as_ever(method)


def copy_of(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@pytest.mark.parametrize("method", METHODS)
def test_more_than_grpc_takes_is_resource_exhausted(platform: Platform, method: str) -> None:
    content = platform.ordinary[method].SerializeToString() + b"\xfa\x7f\x80\x80\x80\x02" + bytes(4 << 20)
    code, details = platform.send(method, content)
    assert (code, "larger than max" in details) == (TOO_MUCH, True)
    platform.answers_as_ever(method)


UNREADABLE = {
    "no UTF-8 in a string": b"\x0a\x02\xff\xfe",
    "an end too soon": b"\x0a\x7fabc",
    "a field number of 0": b"\x00\x01",
    "a number without an end": b"\x18" + b"\xff" * 11,
    "a group": b"\x0b",
    "text": b'{"user_id": "8888"}',
}


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_message_is_an_invalid_argument(platform: Platform, method: str, case: str) -> None:
    name = types(method)[0].DESCRIPTOR.full_name
    refusal = (grpc.StatusCode.INVALID_ARGUMENT, f"the request is no valid {name}")
    assert platform.send(method, UNREADABLE[case]) == refusal
    platform.answers_as_ever(method)


@pytest.mark.parametrize("method", [UM, CM, AS])
def test_ids_are_not_keys(platform: Platform, method: str) -> None:
    """What the store keeps beside users and products cannot be asked for, whatever an id holds."""
    for own_id in ("8888##user_info", "ecrs##bundle", "8888##history", "##", "*", "8888\0", "8888\r\nGET x"):
        field = {"item_ids": [own_id]} if method == CM else {"user_id": own_id}
        reply = platform.ask(method, types(method)[0](**field))
        assert (reply.error.code, faults(reply)) == (500, [])

"""Methods that change something need the write token; all others do not."""

from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest

from ecrs.bundle import Bundle
from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.um_pb2_grpc import UMServiceServicer, UMServiceStub, add_UMServiceServicer_to_server
from ecrs.rpc.authorization import WriteAuthorization, write_metadata
from ecrs.rpc.client import call
from ecrs.rpc.errors import Forbidden
from ecrs.rpc.server import Service
from tests.platform import AS, CM, METHODS, PUT, RANK, RECALL, REMOVE, UM, WRITE_TOKEN, Platform
from tests.service.conftest import Start

READING = (UM, CM, RECALL, RANK, AS)


@pytest.fixture(scope="module")
def platform(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        yield platform


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("token", [None, "", "guessed", WRITE_TOKEN + "x"])
def test_method_that_changes_something_is_refused_without_the_token(
    platform: Platform, method: str, token: str | None
) -> None:
    content = platform.valid_requests[method].SerializeToString()
    code, reply = platform.send(method, content, token)
    assert (code, reply.error.code) == (grpc.StatusCode.OK, 200 if method in READING else 403)


def test_change_with_the_token_is_passed_on_to_recall(platform: Platform) -> None:
    assert platform.ask(PUT, platform.valid_requests[PUT]).error.code == 200
    assert platform.ask(REMOVE, platform.valid_requests[REMOVE]).error.code == 200


class Echo(UMServiceServicer):
    async def um_call(
        self, request: UserModelRequest, context: grpc.aio.ServicerContext
    ) -> UserModelResponse:
        return UserModelResponse()


ECHO = Service("um", "um.UMService", lambda server: add_UMServiceServicer_to_server(Echo(), server))


async def refusal(start: Start, own: str | None, sent: str | None) -> str:
    """Return why a service with the token `own` refuses a call with `sent`; empty if it does not."""
    channel, _ = await start(replace(ECHO, interceptors=[WriteAuthorization("um", {UM}, own)]))
    try:
        await call("um", UMServiceStub(channel).um_call, UserModelRequest(), 5.0, write_metadata(sent))
    except Forbidden as fault:
        return fault.text
    return ""


async def test_refusal_says_what_to_do(start: Start) -> None:
    assert await refusal(start, "secret", "secret") == ""
    assert await refusal(start, "secret", None) == (
        "the write token is missing: send it as metadata `authorization: Bearer TOKEN`"
    )
    assert await refusal(start, "secret", "Secret") == "the write token is not the one of this service"
    for own in (None, ""):
        assert "set ECRS_WRITE_TOKEN or /run/secrets/ecrs_write_token" in await refusal(start, own, "")

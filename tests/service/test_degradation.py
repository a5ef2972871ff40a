"""The gateway while a service fails: real servers and a real Valkey.

It answers every valid request in time, with items, and names in `degraded` the stage that failed and the
fallback that it used.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import CMResponse
from ecrs.contract.rank_pb2 import RankResponse
from ecrs.contract.recall_pb2 import RecallRequest, RecallResponse
from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.user_info_pb2 import UserInfo
from tests.platform import NOW, RECALL, UM, Platform

NOWHERE = "127.0.0.1:1"
"""An address that no server listens on."""
CALL_S = 2.5
WANTED = 20

Answer = Callable[[grpc.ServicerContext], bytes]


@pytest.fixture(scope="module")
def platform(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        yield platform


def recommend(channel: grpc.Channel, user_id: str = "8888", **fields: Any) -> ASResponse:
    """Ask a gateway for WANTED items. The reply must come within CALL_S and be a success."""
    request = ASRequest(user_id=user_id, request_num=WANTED, now=NOW, **fields)
    started = time.monotonic()
    reply = ASServiceStub(channel).as_call(request, timeout=CALL_S, wait_for_ready=True)
    assert time.monotonic() - started < CALL_S
    assert reply.error.code == 200, reply.error
    return reply


def degraded(reply: ASResponse) -> list[tuple[str, str]]:
    return [(one.stage, one.fallback) for one in reply.degraded]


def outcomes(reply: ASResponse) -> dict[str, str]:
    return {one.name: one.outcome for one in reply.stages}


SERVICE = {"user": "um", "recall": "recall", "item": "cm", "rank": "rank"}
"""The service behind each stage."""
FALLBACK = {"user": "request", "recall": "popular", "item": "last read", "rank": "retrieval order"}

UNUSABLE: dict[str, Any] = {
    "recall": RecallResponse(score_pairs=[{"nid": "1"}], provenance={"channels": ["vector"]}),
    "rank": RankResponse(score_pairs=[{"nid": "another item", "score": 0.5}]),
}
"""Replies, by stage, that can be parsed and cannot be used."""


@contextmanager
def server_that(answer: Answer) -> Iterator[str]:
    """A gRPC server that answers every call with the bytes of `answer`; yields its address."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer(context))

    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@contextmanager
def hanging_server() -> Iterator[str]:
    """A gRPC server that answers no call."""
    stopped = threading.Event()

    def wait(context: grpc.ServicerContext) -> bytes:
        stopped.wait()
        return b""

    with server_that(wait) as address:
        try:
            yield address
        finally:
            stopped.set()


@contextmanager
def failing(stage: str, fault: str) -> Iterator[str]:
    """The address of a service for `stage` that fails by `fault`, a key of OUTCOMES."""
    match fault:
        case "stopped":
            yield NOWHERE
        case "hangs":
            with hanging_server() as address:
                yield address
        case "crashes":
            with server_that(lambda context: context.abort(grpc.StatusCode.INTERNAL, "a bug")) as address:
                yield address
        case "no message":
            with server_that(lambda context: b"\xff\xff\xff") as address:
                yield address
        case "unusable message":
            with server_that(lambda context: UNUSABLE[stage].SerializeToString()) as address:
                yield address
        case _:
            reply = {"user": UserModelResponse, "recall": RecallResponse, "item": CMResponse}
            error = reply.get(stage, RankResponse)(error={"code": int(fault), "text": "its reason"})
            with server_that(lambda context: error.SerializeToString()) as address:
                yield address


OUTCOMES = {
    "stopped": "unavailable",
    "hangs": "deadline_exceeded",
    "crashes": "unavailable",
    "no message": "malformed_data",
    "unusable message": "malformed_data",
    "400": "bad_request",
    "502": "malformed_data",
    "503": "unavailable",
    "504": "deadline_exceeded",
}
"""How a service can fail, and the stage's outcome then."""

CASES = [
    (stage, fault)
    for stage in SERVICE
    for fault in OUTCOMES
    if fault != "unusable message" or stage in UNUSABLE
]


@pytest.mark.parametrize(("stage", "fault"), CASES)
def test_a_failing_service_costs_its_stage_and_nothing_else(
    platform: Platform, stage: str, fault: str
) -> None:
    with (
        failing(stage, fault) as address,
        platform.gateway(**{f"{SERVICE[stage]}_target": address}) as gateway,
    ):
        reply = recommend(gateway)
    assert len(reply.item_infos) == WANTED
    assert degraded(reply) == [(stage, FALLBACK[stage])]
    assert outcomes(reply) == dict.fromkeys(SERVICE, "ok") | {stage: OUTCOMES[fault]}


def recalled(platform: Platform, user: UserInfo) -> list[str]:
    """The skus of the first WANTED candidates for a user, in recall's order."""
    reply = platform.ask(RECALL, RecallRequest(user_info=user, request_num=100, now=NOW))
    return [pair.nid for pair in reply.score_pairs[:WANTED]]


@pytest.mark.parametrize("described", [{}, {"age": "2.0", "sex": "1.0"}], ids=["id alone", "id and profile"])
def test_without_um_candidates_are_those_of_the_user_in_the_request(
    platform: Platform, described: dict[str, str]
) -> None:
    with platform.gateway(um_target=NOWHERE, rank_target=NOWHERE) as gateway:
        reply = recommend(gateway, user_info=described)
    expected = recalled(platform, UserInfo(user_id="8888", **described))
    assert [item.sku_id for item in reply.item_infos] == expected


def test_without_recall_items_are_the_popular_ones_ranked(platform: Platform) -> None:
    with platform.gateway(recall_target=NOWHERE) as gateway:
        reply = recommend(gateway)
    assert {one.channel for item in reply.item_infos for one in item.provenance} == {"popular"}
    scores = [item.rank_score for item in reply.item_infos]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0


def test_without_rank_items_keep_the_order_of_retrieval(platform: Platform) -> None:
    with platform.gateway(rank_target=NOWHERE) as gateway:
        reply = recommend(gateway)
    user = platform.ask(UM, UserModelRequest(user_id="8888")).user_info
    assert [item.sku_id for item in reply.item_infos] == recalled(platform, user)
    assert reply.ranked == 0


def test_without_any_service_items_are_the_popular_ones(platform: Platform) -> None:
    with platform.gateway(**{f"{service}_target": NOWHERE for service in SERVICE.values()}) as gateway:
        reply = recommend(gateway)
    assert len(reply.item_infos) == WANTED
    assert degraded(reply) == list(FALLBACK.items())

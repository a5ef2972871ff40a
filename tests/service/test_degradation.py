"""The gateway while a service or a stored record fails, over real servers and a real Valkey.

It answers every valid request in time and with items, and names in `degraded` the stage that failed and the
fallback that it used.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
import redis

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import CMRequest, CMResponse
from ecrs.contract.rank_pb2 import RankResponse
from ecrs.contract.recall_pb2 import RecallRequest, RecallResponse
from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.aggregates import AGGREGATE_COLUMNS
from ecrs.rpc.breaker import FAILURES_TO_OPEN
from ecrs.storage.records import aggregates_key, history_key, item_key, user_key
from tests.platform import AS, CM, NOW, PUT, RECALL, REMOVE, STOCK, UM, Platform

NOWHERE = "127.0.0.1:1"
"""An address that no server listens on."""
CALL_S = 2.5
"""Longest time that a call to the gateway may take."""
WANTED = 20
"""Number of items requested."""

Answer = Callable[[grpc.ServicerContext], bytes]


@pytest.fixture(scope="module")
def platform(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        yield platform


def recommend(channel: grpc.Channel, user_id: str = "8888", **fields: Any) -> ASResponse:
    """Request WANTED items from a gateway. The reply must arrive within CALL_S and be a success."""
    request = ASRequest(user_id=user_id, request_num=WANTED, now=NOW, **fields)
    started = time.monotonic()
    reply = ASServiceStub(channel).as_call(request, timeout=CALL_S, wait_for_ready=True)
    assert time.monotonic() - started < CALL_S
    assert reply.error.code == 200, reply.error
    return reply


def degraded(reply: ASResponse) -> list[tuple[str, str]]:
    return [(degradation.stage, degradation.fallback) for degradation in reply.degraded]


def outcomes(reply: ASResponse) -> dict[str, str]:
    return {stage.name: stage.outcome for stage in reply.stages}


# ---- A service fails ---------------------------------------------------------------------------

SERVICE = {"user": "um", "recall": "recall", "item": "cm", "rank": "rank"}
"""The service behind each stage."""
FALLBACK = {"user": "request", "recall": "popular", "item": "last read", "rank": "retrieval order"}

UNUSABLE: dict[str, Any] = {
    "recall": RecallResponse(score_pairs=[{"nid": "1"}], provenance={"channels": ["vector"]}),
    "rank": RankResponse(score_pairs=[{"nid": "another item", "score": 0.5}]),
}
"""Replies, by stage, that can be parsed but not used."""


@contextmanager
def server_that(answer: Answer) -> Iterator[str]:
    """Run a gRPC server that answers every call with the bytes that `answer` returns; yields its address."""

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
    """Run a gRPC server that never answers a call; yields its address."""
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
    """Run a service for `stage` that fails by `fault`, a key of OUTCOMES; yields its address."""
    match fault:
        case "stopped":
            yield NOWHERE
        case "hangs":
            with hanging_server() as address:
                yield address
        case "crashes":
            with server_that(lambda context: context.abort(grpc.StatusCode.INTERNAL, "a bug")) as address:
                yield address
        case "invalid message":
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
    "invalid message": "malformed_data",
    "unusable message": "malformed_data",
    "400": "bad_request",
    "502": "malformed_data",
    "503": "unavailable",
    "504": "deadline_exceeded",
}
"""The ways in which a service can fail, and the outcome of its stage for each."""

CASES = [
    (stage, fault)
    for stage in SERVICE
    for fault in OUTCOMES
    if fault != "unusable message" or stage in UNUSABLE
]


@pytest.mark.parametrize(("stage", "fault"), CASES)
def test_a_failing_service_degrades_only_its_stage(platform: Platform, stage: str, fault: str) -> None:
    with (
        failing(stage, fault) as address,
        platform.gateway(**{f"{SERVICE[stage]}_target": address}) as gateway,
    ):
        reply = recommend(gateway)
    assert len(reply.item_infos) == WANTED
    assert degraded(reply) == [(stage, FALLBACK[stage])]
    assert outcomes(reply) == dict.fromkeys(SERVICE, "ok") | {stage: OUTCOMES[fault]}


def recalled(platform: Platform, user: UserInfo) -> list[str]:
    """Return the skus of the first WANTED candidates for a user, in retrieval order."""
    reply = platform.ask(RECALL, RecallRequest(user_info=user, request_num=100, now=NOW))
    return [pair.nid for pair in reply.score_pairs[:WANTED]]


@pytest.mark.parametrize("profile", [{}, {"age": "2.0", "sex": "1.0"}], ids=["id only", "id and profile"])
def test_without_um_the_requests_description_of_the_user_is_used(
    platform: Platform, profile: dict[str, str]
) -> None:
    with platform.gateway(um_target=NOWHERE, rank_target=NOWHERE) as gateway:
        reply = recommend(gateway, user_info=profile)
    expected = recalled(platform, UserInfo(user_id="8888", **profile))
    assert [item.sku_id for item in reply.item_infos] == expected


def test_without_recall_popular_items_are_ranked(platform: Platform) -> None:
    with platform.gateway(recall_target=NOWHERE) as gateway:
        reply = recommend(gateway)
    channels = {provenance.channel for item in reply.item_infos for provenance in item.provenance}
    assert channels == {"popular"}
    scores = [item.rank_score for item in reply.item_infos]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0


def test_without_rank_items_keep_their_retrieval_order(platform: Platform) -> None:
    with platform.gateway(rank_target=NOWHERE) as gateway:
        reply = recommend(gateway)
    user = platform.ask(UM, UserModelRequest(user_id="8888")).user_info
    assert [item.sku_id for item in reply.item_infos] == recalled(platform, user)
    assert reply.ranked == 0


def test_without_cm_candidates_never_read_before_are_replaced_by_popular_items(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.gateway.fallbacks.POPULAR_KEPT", 2 * WANTED)  # fewer than the shop has
    with platform.gateway(cm_target=NOWHERE, candidates=WANTED) as gateway:
        reply = recommend(gateway)
    assert len({item.sku_id for item in reply.item_infos}) == WANTED
    assert degraded(reply) == [("item", "last read"), ("item", "popular")]


def test_without_any_service_the_answer_is_popular_items(platform: Platform) -> None:
    with platform.gateway(**{f"{service}_target": NOWHERE for service in SERVICE.values()}) as gateway:
        reply = recommend(gateway)
    assert len(reply.item_infos) == WANTED
    assert degraded(reply) == list(FALLBACK.items())


# ---- A stored user or item is malformed ----------------------------------------------------------

PROFILE = dict.fromkeys(("age", "sex", "city_level", "province", "city", "country"), "1.0") | {"user_id": "9"}
COLUMNS = {name: [1] for name in AGGREGATE_COLUMNS}


@contextmanager
def stored_user(platform: Platform, **values: bytes) -> Iterator[str]:
    """Store a user with `values` in place of valid records, named by the second part of their keys.

    Yields the user's id.
    """
    version = platform.bundle.version
    key_of = {
        "user_info": user_key("9"),
        "history": history_key("9", version),
        "aggregates": aggregates_key("9", version),
    }
    keys = {key_of[name]: value for name, value in ({"user_info": orjson.dumps(PROFILE)} | values).items()}
    with redis.Redis.from_url(platform.redis_url) as store:
        store.mset(keys)
        try:
            yield "9"
        finally:
            store.delete(*keys)


def aggregates(skus: Any, **columns: Any) -> bytes:
    """Return a stored aggregates record in which every number is 1, except in `columns`."""
    return orjson.dumps({"sku_ids": skus, **COLUMNS, **columns})


LONG_HISTORY = orjson.dumps([["1", NOW - n, 2] for n in range(50_000)])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user_info", b"garbage"),
        ("user_info", b"[]"),
        ("user_info", b'{"user_id": "9"}'),
        ("user_info", orjson.dumps(PROFILE | {"age": 5})),
        ("user_info", orjson.dumps(PROFILE | {"user_id": "8888"})),
        ("history", b"garbage"),
        ("history", b"5"),
        ("history", b'[["1", 1, 99]]'),
        ("history", b'[["1", -1, 2]]'),
        ("history", b'[["1", 1e23, 2]]'),
        ("history", b"[[1, 1, 2]]"),
        ("history", LONG_HISTORY),
        ("aggregates", b"garbage"),
        ("aggregates", b'{"sku_ids": ["1"]}'),
        ("aggregates", aggregates(["1"], orders=["x"])),
        ("aggregates", aggregates(["1"], orders=[-1])),
        ("aggregates", aggregates([1])),
        ("aggregates", aggregates(["1", "1"], **{name: [1, 1] for name in AGGREGATE_COLUMNS})),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:30].decode(),
)
def test_a_user_with_a_malformed_record_is_answered_in_full_and_so_are_others(
    platform: Platform, key: str, value: bytes
) -> None:
    with stored_user(platform, **{key: value}) as user_id, platform.gateway() as gateway:
        for _ in range(4 * FAILURES_TO_OPEN):
            reply = recommend(gateway, user_id, new_only=True)
            assert len(reply.item_infos) == WANTED
            assert outcomes(reply) == dict.fromkeys(SERVICE, "ok")
        assert outcomes(recommend(gateway)) == dict.fromkeys(SERVICE, "ok")
        user = platform.ask(UM, UserModelRequest(user_id=user_id)).user_info
        age = "-1" if key == "user_info" else "1.0"
        assert (user.user_id, user.age) == (user_id, age)
        if key != "user_info":
            assert not user.history
            assert not user.aggregates.sku_ids


@pytest.mark.parametrize("value", [b"garbage", "too long"])
def test_a_malformed_popular_item_is_left_out_and_the_others_are_ranked(
    platform: Platform, tiny: Bundle, tmp_path: Path, value: Any
) -> None:
    with platform.gateway() as gateway:
        sku = recommend(gateway, "1").item_infos[0].sku_id
    record = {"sku_id": sku, "brand": "x" * 2000, "shopid": "6980", "cate": "70"}
    with (
        Platform.running(tiny, tmp_path) as fresh,  # its cm has not cached the valid record
        redis.Redis.from_url(fresh.redis_url) as store,
        fresh.gateway() as gateway,
    ):
        assert sku not in fresh.valid_requests[CM].item_ids
        store.set(item_key(sku), orjson.dumps(record) if value == "too long" else value)
        for _ in range(4 * FAILURES_TO_OPEN):
            reply = recommend(gateway, "1")
            assert sku not in {item.sku_id for item in reply.item_infos}
            assert outcomes(reply) == dict.fromkeys(SERVICE, "ok")
            assert len(reply.item_infos) == WANTED


def test_an_emptied_store_is_503_at_once_and_the_gateway_falls_back(tiny: Bundle, tmp_path: Path) -> None:
    with (
        Platform.running(tiny, tmp_path) as platform,
        platform.gateway() as gateway,
        redis.Redis.from_url(platform.redis_url) as store,
    ):
        recommend(gateway)
        store.flushall()
        for method in (UM, CM, PUT, REMOVE, STOCK):
            request = CMRequest(item_ids=["never read"]) if method == CM else platform.valid_requests[method]
            error = platform.ask(method, request).error
            assert (error.code, error.text) == (
                503,
                "the profile store is empty: seed-redis has not finished",
            )
        assert store.dbsize() == 0
        reply = recommend(gateway)
        assert ("user", "request") in degraded(reply)
        assert len(reply.item_infos) == WANTED


def test_an_unknown_user_is_500_with_the_text_of_the_original(platform: Platform) -> None:
    error = platform.ask(AS, ASRequest(user_id="nobody")).error
    text = 'UM server get user_info from redis fail. (user_id: "nobody"\n)'
    assert (error.code, error.text) == (500, text)


def test_new_only_without_recall_excludes_bought_items(platform: Platform) -> None:
    with platform.gateway(recall_target=NOWHERE) as gateway:
        bought = recommend(gateway).item_infos[0].sku_id
        with stored_user(platform, aggregates=aggregates([bought])) as user_id:
            recommended = [
                [item.sku_id for item in recommend(gateway, user_id, new_only=new_only).item_infos]
                for new_only in (False, True)
            ]
    assert [bought in skus for skus in recommended] == [True, False]

"""All five services handle invalid input safely.

Every request gets, in bounded time, a valid answer or an error that names the fault and shows no internals;
and the next ordinary request is answered correctly, whether the input is a request or a record that another
program wrote into the profile store. `make fuzz` tries more examples.
"""

import math
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.cm_pb2 import CMRequest, PutItemsRequest, RemoveItemsRequest, SetStockRequest
from ecrs.contract.item_info_pb2 import ItemInfo, ProvenanceTable
from ecrs.contract.rank_pb2 import RankRequest
from ecrs.contract.recall_pb2 import RecallRequest, RecallResponse, UpsertVectorsRequest
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.user_info_pb2 import Aggregates, Interaction, UserInfo
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, MAX_PRODUCTS
from ecrs.domain.entities import HISTORY_LENGTH, MAX_SKU_BYTES, MAX_TIMESTAMP
from ecrs.domain.sizes import MAX_ITEMS
from ecrs.rank.tables import load_ranker_inputs
from ecrs.rpc.errors import BadRequest
from ecrs.serving.signature import ModelSignature
from ecrs.storage.records import BUNDLE_KEY, aggregates_key, history_key, item_key, user_key
from ecrs.wire.limits import LIMITS, USER_BYTES
from ecrs.wire.messages import to_item, to_provenance, to_user
from tests.damaged_json import damaged
from tests.invalid_requests import UNPARSABLE, corrupted, violations
from tests.platform import (
    AS,
    CM,
    METHODS,
    NOW,
    PROBES,
    PUT,
    RANK,
    RECALL,
    REMOVE,
    REMOVE_VECTORS,
    STOCK,
    UM,
    UPSERT_VECTORS,
    Platform,
    types,
)

OK, TOO_LARGE = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def platform(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        yield platform
        for method in PROBES:
            platform.assert_answers_correctly(method)


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
def test_an_invalid_request_is_answered_and_so_is_the_next_one(
    platform: Platform, method: str, data: st.DataObject
) -> None:
    request = data.draw(corrupted(platform.valid_requests[method]))
    if method in (REMOVE, REMOVE_VECTORS, STOCK):  # keep the bundle's items, which the next request needs
        unknown = [sku for sku in request.item_ids if sku not in platform.bundle.catalogue.row]
        del request.item_ids[:]
        request.item_ids.extend(unknown)
    code, reply = platform.send(method, request.SerializeToString())
    if code is OK:
        assert violations(reply) == []
        assert method not in (RECALL, AS) or has_no_duplicates(reply)
    else:
        assert (code, "larger than max" in reply) == (TOO_LARGE, True), reply
    platform.assert_answers_correctly(method)


@given(data=st.data())
def test_model_inputs_stay_within_the_embedding_tables(platform: Platform, data: st.DataObject) -> None:
    bundle = platform.bundle
    ranker = load_ranker_inputs(bundle)
    request = data.draw(corrupted(platform.valid_requests[RANK]))
    infos = request.item_infos[:1000] or [ItemInfo()]
    try:
        user, items = to_user(request.user_info), ranker.items([to_item(info) for info in infos])
        ranker_ids = ranker.ids(user, items, to_provenance(request.provenance, len(infos)), request.now)
    except BadRequest:
        return
    inputs = {"user_tower": bundle.encoder.users([user]), "item_tower": items.ids, "ranker": ranker_ids}
    for model, ids in inputs.items():
        ModelSignature.load(bundle.path / model).check(ids)  # raises InvalidInput if an id is out of bounds


STORED_USER = {
    user_key("bad"): {
        **{"user_id": "bad", "age": "5.0", "sex": "1.0", "city_level": "3.0"},
        **{"province": "11.0", "city": "120.0", "country": "741.0"},
    },
    "history": [["12048", NOW - 9, 2], ["1", NOW - 99, 1]],
    "aggregates": {"sku_ids": ["12048", "1"]} | {column: [1, 0.5] for column in AGGREGATE_COLUMNS},
}
"""Valid records of the user "bad": the profile by its key, and the others by their kind."""


@pytest.fixture(scope="module")
def store(platform: Platform) -> Iterator[redis.Redis]:
    """The platform's profile store, as another program sees it."""
    with redis.Redis.from_url(platform.redis_url) as store:
        yield store


@pytest.mark.parametrize("record", STORED_USER)
@given(data=st.data())
def test_a_user_with_a_damaged_record_is_answered_and_so_is_the_next_one(
    platform: Platform, store: redis.Redis, record: str, data: st.DataObject
) -> None:
    key_of = {
        "history": history_key("bad", platform.bundle.version),
        "aggregates": aggregates_key("bad", platform.bundle.version),
    }
    for name, valid in STORED_USER.items():
        store.set(key_of.get(name, name), orjson.dumps(valid))
    content = data.draw(damaged(STORED_USER[record]))
    store.set(key_of.get(record, record), content)
    reply = platform.ask(UM, UserModelRequest(user_id="bad"))
    assert violations(reply) == []
    assert reply.error.code == 200
    answer = platform.ask(AS, ASRequest(user_id="bad", request_num=9, now=NOW))
    assert violations(answer) == []
    if reply.error.code == 200:
        assert reply.user_info.user_id == "bad"
        assert (answer.error.code, len(answer.item_infos), list(answer.degraded)) == (200, 9, [])
    platform.assert_answers_correctly(UM)


@given(data=st.data(), sku=st.uuids().map(str))
def test_an_item_with_a_damaged_record_is_unknown_and_the_others_are_scored(
    platform: Platform, store: redis.Redis, data: st.DataObject, sku: str
) -> None:
    record = {"sku_id": sku, "brand": "3456", "shopid": "6980", "cate": "70"}
    store.set(item_key(sku), data.draw(damaged(record)))
    reply = platform.ask(CM, CMRequest(item_ids=["1", sku, "12048"]))
    assert (reply.error.code, violations(reply)) == (200, [])
    known = [info.sku_id for info in reply.item_infos]
    assert [*known, *reply.missing_ids] in (["1", "12048", sku], ["1", sku, "12048"])
    ranked = platform.ask(RANK, RankRequest(item_infos=reply.item_infos, now=NOW))
    assert (ranked.error.code, violations(ranked)) == (200, [])
    assert sorted(pair.nid for pair in ranked.score_pairs) == sorted(known)


@given(data=st.data())
def test_a_damaged_bundle_record_is_unavailable_until_it_is_mended(
    platform: Platform, store: redis.Redis, data: st.DataObject
) -> None:
    valid = store.get(BUNDLE_KEY)
    store.set(BUNDLE_KEY, data.draw(damaged(orjson.loads(valid))))
    try:
        for method, request in (
            (UM, UserModelRequest(user_id="8888")),
            (UM, UserModelRequest(user_id="nobody")),
            (CM, CMRequest(item_ids=["no such item"])),
        ):
            reply = platform.ask(method, request)
            assert violations(reply) == []
    finally:
        store.set(BUNDLE_KEY, valid)
    platform.assert_answers_correctly(UM)
    platform.assert_answers_correctly(CM)


def has_no_duplicates(reply: Any) -> bool:
    if isinstance(reply, RecallResponse):
        skus = [pair.nid for pair in reply.score_pairs]
    else:
        skus = [info.sku_id for info in reply.item_infos]
    return len(skus) == len(set(skus))


def assert_refused(platform: Platform, method: str, reason: str, **changed: Any) -> None:
    """Send a valid request with `changed` fields.

    The reply must be a 400 whose text begins with `reason`, and the next valid request must be answered.
    """
    request = copy_of(platform.valid_requests[method])
    for name, value in changed.items():
        request.ClearField(name)
        request.MergeFrom(type(request)(**{name: value}))
    reply = platform.ask(method, request)
    assert (reply.error.code, reply.error.text[: len(reason)]) == (400, reason)
    assert violations(reply) == []
    platform.assert_answers_correctly(method)


def copy_of(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


MS = NOW * 1000
"""A time in milliseconds, which callers often send instead of seconds."""
LONG = "x" * 3_000
LONG_AS_SHOWN = f"'{'x' * 80}'… (3000 characters)"
"""How an error text quotes LONG."""

NEW_USER_FIELDS = {RECALL: {}, RANK: {}, AS: {"user_id": ""}}
"""The methods that accept a user_info, each with the fields that make the request one for a new user."""


def aggregates_of_one_item(sku: str = "1", **changed: float) -> Aggregates:
    """Aggregates of an item that was bought twice, with `changed` numbers."""
    row = dict(zip(AGGREGATE_COLUMNS, (2, NOW - 99, NOW, 1.9, 1.9, 1, NOW, 0.2), strict=True)) | changed
    return Aggregates(sku_ids=[sku], numbers=np.array(list(row.values()), dtype="<f8").tobytes())


@pytest.mark.parametrize("method", NEW_USER_FIELDS)
@pytest.mark.parametrize("column", AGGREGATE_COLUMNS)
def test_an_impossible_number_in_the_aggregates_is_refused_with_its_column(
    platform: Platform, method: str, column: str
) -> None:
    for value in (math.nan, math.inf, -math.inf, -1.0, 1e300, MS):
        user = UserInfo(age="5.0", aggregates=aggregates_of_one_item(**{column: value}))
        reason = f"user_info.aggregates.numbers: {column} of '1': expected 0 to "
        assert_refused(platform, method, reason, user_info=user, **NEW_USER_FIELDS[method])


@pytest.mark.parametrize("method", NEW_USER_FIELDS)
def test_aggregates_with_duplicate_items_or_missing_numbers_are_refused(
    platform: Platform, method: str
) -> None:
    one = aggregates_of_one_item()
    twice = Aggregates(sku_ids=["1", "1"], numbers=one.numbers * 2)
    short = Aggregates(sku_ids=["1"], numbers=one.numbers[:-1])
    for aggregates, reason in (
        (twice, "user_info.aggregates.sku_ids: '1' appears twice"),
        (short, "user_info.aggregates.numbers: 63 bytes, expected 64 a product, 64"),
        (Aggregates(sku_ids=["1", "2"]), "user_info.aggregates.numbers: 0 bytes, expected 64 a product, 128"),
    ):
        user = UserInfo(age="5.0", aggregates=aggregates)
        assert_refused(platform, method, reason, user_info=user, **NEW_USER_FIELDS[method])


@pytest.mark.parametrize("method", NEW_USER_FIELDS)
@pytest.mark.parametrize("timestamp", [-1, MS, 2**63 - 1, -(2**63)])
def test_a_timestamp_that_is_not_in_unix_seconds_is_refused(
    platform: Platform, method: str, timestamp: int
) -> None:
    reason = f"expected Unix seconds, 0 to 9999999999, got {timestamp}"
    assert_refused(platform, method, f"now: {reason}", now=timestamp)
    session = UserInfo(history=[Interaction(sku_id="1", ts=NOW), Interaction(sku_id="2", ts=timestamp)])
    reason = f"user_info.history[1].ts: {reason}"
    assert_refused(platform, method, reason, user_info=session, **NEW_USER_FIELDS[method])


def items(*skus: str, **fields: str) -> list[ItemInfo]:
    return [ItemInfo(sku_id=sku, **fields) for sku in skus]


@pytest.mark.parametrize(
    ("method", "field", "value", "reason"),
    [
        (UM, "user_id", LONG, "user_id: at most 256 characters, got 3000"),
        (AS, "user_id", LONG, "user_id: at most 256 characters, got 3000"),
        (AS, "user_info", UserInfo(age="x" * 263_000), "user_info: at most 262144 bytes, got 263004"),
        (CM, "item_ids", ["1", LONG], "item_ids[1]: at most 128 characters, got 3000"),
        (CM, "item_ids", ["1"] * 10_000, "item_ids: expected 1 to 1000 ids, got 10000"),
        (PUT, "item_infos", items(LONG), f"item_infos[0]: sku {LONG_AS_SHOWN}: it is longer than 128 bytes"),
        (PUT, "item_infos", items("a", cate=LONG), "item_infos[0]: sku 'a': cate is longer than 128 bytes"),
        (PUT, "item_infos", items(*["a"] * 10_000), "item_infos: expected 1 to 1000 products, got 10000"),
        (REMOVE, "item_ids", ["x"] * 10_000, "item_ids: expected 1 to 1000 products, got 10000"),
        (STOCK, "item_ids", ["x"] * 10_000, "item_ids: expected 1 to 1000 products, got 10000"),
        (RECALL, "recall_type", LONG, f"recall_type: {LONG_AS_SHOWN} is not one of cold_st"),
        (RECALL, "request_num", 2**32 - 1, "request_num: at most 1000, got 4294967295"),
        (AS, "request_num", 2**32 - 1, "request_num: at most 1000, got 4294967295"),
        (RANK, "item_infos", items(*["1"] * 10_000), "item_infos: expected 1 to 1000 products, got 10000"),
        *((method, "log_id", LONG, "log_id: at most 128 characters, got 3000") for method in METHODS),
        (RANK, "provenance", ProvenanceTable(channels=["x"] * 17), "provenance.channels: at most 16, got 17"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_a_value_that_is_too_long_is_refused(
    platform: Platform, method: str, field: str, value: Any, reason: str
) -> None:
    assert_refused(platform, method, reason, **{field: value})


def test_an_overlong_item_is_scored_as_unknown_and_the_others_as_ever(platform: Platform) -> None:
    request = copy_of(platform.valid_requests[RANK])
    expected = {pair.nid: pair.score for pair in platform.ask(RANK, request).score_pairs}
    request.item_infos[0].brand = LONG
    reply = platform.ask(RANK, request)
    scores = {pair.nid: pair.score for pair in reply.score_pairs}
    overlong = request.item_infos[0].sku_id
    assert violations(reply) == []
    assert scores.keys() == expected.keys()
    for sku in expected.keys() - {overlong}:
        assert scores[sku] == pytest.approx(expected[sku], abs=1e-6)


def test_an_overlong_bundle_version_is_shortened_in_the_error(platform: Platform) -> None:
    for method in (UPSERT_VECTORS, REMOVE_VECTORS):
        request = copy_of(platform.valid_requests[method])
        request.bundle_version = LONG
        reply = platform.ask(method, request)
        assert (reply.error.code, len(reply.error.text) < 300) == (503, True)


INVALID_VECTORS = {
    "length 2": ([2.0, *[0.0] * 31], "length 2, expected 1"),
    "length 0": ([0.0] * 32, "length 0, expected 1"),
    "length overflows": ([3e38] * 32, "length"),
    "infinity": ([math.inf, *[0.0] * 31], "a value is not finite"),
    "NaN": ([math.nan] * 32, "a value is not finite"),
    "33 values": ([1.0] + [0.0] * 32, "33 values, expected 32"),
    "no values": ([], "0 values, expected 32"),
}


@pytest.mark.parametrize("case", INVALID_VECTORS)
def test_an_invalid_vector_is_refused(platform: Platform, case: str) -> None:
    vector, reason = INVALID_VECTORS[case]
    pairs = [UpsertVectorsRequest.ItemVector(sku_id="new", vector=vector, cate="70")]
    assert_refused(platform, UPSERT_VECTORS, f"vectors: sku 'new': {reason}", vectors=pairs)


@pytest.mark.parametrize("method", [RECALL, RANK])
def test_an_overlong_history_is_accepted(platform: Platform, method: str) -> None:
    history = [Interaction(sku_id=str(2000 + n % 297), ts=NOW - n, type="ORDER") for n in range(10_000)]
    request = copy_of(platform.valid_requests[method])
    request.user_info.history.extend(history)
    reply = platform.ask(method, request)
    assert (reply.error.code, violations(reply)) == (200, [])
    assert reply.score_pairs
    platform.assert_answers_correctly(method)


def test_the_gateway_does_not_forward_an_oversized_user(platform: Platform) -> None:
    history = [Interaction(sku_id=f"{n:06}", ts=NOW, type="ORDER") for n in range(14_600)]
    for _ in range(6):  # this many failures of a service would open its breaker, and degrade other requests
        assert_refused(
            platform,
            AS,
            "user_info: at most 262144 bytes, got ",
            user_info=UserInfo(history=history),
            user_id="",
        )


@pytest.mark.parametrize("method", METHODS)
def test_a_request_above_the_limit_of_its_method_is_refused_unparsed(platform: Platform, method: str) -> None:
    maximum = LIMITS[method].max_bytes
    unparsable = UNPARSABLE["a group"] + bytes(maximum)
    code, reply = platform.send(method, unparsable)
    assert code is OK
    text = f"the request: at most {maximum} bytes, got {len(unparsable)}"
    assert (reply.error.code, reply.error.text) == (400, text)
    platform.assert_answers_correctly(method)


def test_the_longest_valid_requests_are_below_the_limits() -> None:
    """1,000 products with the longest values, and a user with as many aggregates and 50 interactions."""
    longest = ["ü" * 60 + f"{number:08}" for number in range(1000)]
    assert {len(value.encode()) for value in longest} == {MAX_SKU_BYTES}
    profile = dict.fromkeys(("age", "sex", "city_level", "province", "city", "country"), longest[0])
    history = [Interaction(sku_id=sku, ts=MAX_TIMESTAMP, type="CART") for sku in longest[:HISTORY_LENGTH]]
    aggregates = Aggregates(sku_ids=longest[:MAX_PRODUCTS], numbers=bytes(64 * MAX_PRODUCTS))
    user = UserInfo(user_id="ü" * 256, history=history, aggregates=aggregates, **profile)
    infos = [ItemInfo(sku_id=sku, brand=sku, shopid=sku, cate=sku, out_of_stock=True) for sku in longest]
    provenance = ProvenanceTable(
        channels=["x" * 20] * 5, positions=[MAX_ITEMS] * 5 * MAX_ITEMS, scores=[1.0] * 5 * MAX_ITEMS
    )
    log = {"log_id": "ü" * 128}
    requests = {
        UM: UserModelRequest(user_id="ü" * 256, **log),
        CM: CMRequest(item_ids=longest, **log),
        PUT: PutItemsRequest(item_infos=infos, **log),
        REMOVE: RemoveItemsRequest(item_ids=longest, **log),
        STOCK: SetStockRequest(item_ids=longest, **log),
        RECALL: RecallRequest(user_info=user, recall_type="repurchase", now=MAX_TIMESTAMP, **log),
        RANK: RankRequest(user_info=user, item_infos=infos, provenance=provenance, now=MAX_TIMESTAMP, **log),
        AS: ASRequest(user_id="ü" * 256, user_info=user, now=MAX_TIMESTAMP, **log),
    }
    assert user.ByteSize() <= USER_BYTES
    for method, request in requests.items():
        assert request.ByteSize() <= LIMITS[method].max_bytes, method


@pytest.mark.parametrize("method", METHODS)
def test_a_message_above_grpcs_size_limit_is_resource_exhausted(platform: Platform, method: str) -> None:
    content = (
        platform.valid_requests[method].SerializeToString() + b"\xfa\x7f\x80\x80\x80\x02" + bytes(4 << 20)
    )
    code, details = platform.send(method, content)
    assert (code, "larger than max" in details) == (TOO_LARGE, True)
    platform.assert_answers_correctly(method)


@pytest.mark.parametrize("case", UNPARSABLE)
@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_not_a_message_are_an_invalid_argument(
    platform: Platform, method: str, case: str
) -> None:
    name = types(method)[0].DESCRIPTOR.full_name
    refusal = (grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a valid {name}")
    assert platform.send(method, UNPARSABLE[case]) == refusal
    platform.assert_answers_correctly(method)


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
def test_damaged_bytes_are_answered_or_refused(platform: Platform, method: str, data: st.DataObject) -> None:
    content = bytearray(platform.valid_requests[method].SerializeToString())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=8))
    code, reply = platform.send(method, bytes(content))
    if code is OK:
        assert violations(reply) == []
    else:
        assert code is grpc.StatusCode.INVALID_ARGUMENT, reply
    platform.assert_answers_correctly(method)


@pytest.mark.parametrize("method", [UM, CM, AS])
def test_an_id_cannot_reach_other_keys_of_the_store(platform: Platform, method: str) -> None:
    """No id, whatever it contains, reads a record that is not a user or an item."""
    for id_ in ("8888##user_info", "ecrs##bundle", "8888##history", "##", "*", "8888\0", "8888\r\nGET x"):
        field = {"item_ids": [id_]} if method == CM else {"user_id": id_}
        reply = platform.ask(method, types(method)[0](**field))
        assert (reply.error.code, violations(reply)) == (500, [])

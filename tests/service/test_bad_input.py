"""All five services, and input that they should never get.

The law, each time: a valid answer, or an error that says what is wrong and shows no internals; in
bounded time; and the next ordinary request is answered as if nothing had been.
`make fuzz` looks longer.
"""

import math
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.bundle import Bundle
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.recall_pb2 import RecallResponse, UpsertVectorsRequest
from ecrs.contract.user_info_pb2 import Aggregates, Interaction, UserInfo
from ecrs.domain.aggregates import AGGREGATE_COLUMNS
from ecrs.rank.tables import load_ranker_inputs
from ecrs.rpc.errors import BadRequest
from ecrs.serving.signature import ModelSignature
from ecrs.wire.messages import to_item, to_provenance, to_user
from tests.invalid_requests import corrupted, violations
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

OK, TOO_MUCH = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def platform(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        yield platform
        for method in PROBES:
            platform.assert_answers_correctly(method)


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
def test_whatever_is_bad_is_answered_and_so_is_the_next_request(
    platform: Platform, method: str, data: st.DataObject
) -> None:
    request = data.draw(corrupted(platform.valid_requests[method]))
    if method in (REMOVE, REMOVE_VECTORS, STOCK):  # what the next request asks for must still be there
        kept = [sku for sku in request.item_ids if sku not in platform.bundle.catalogue.row]
        del request.item_ids[:]
        request.item_ids.extend(kept)
    code, reply = platform.send(method, request.SerializeToString())
    if code is OK:
        assert violations(reply) == []
        assert method not in (RECALL, AS) or no_product_twice(reply)
    else:
        assert (code, "larger than max" in reply) == (TOO_MUCH, True), reply
    platform.assert_answers_correctly(method)


@given(data=st.data())
def test_no_id_outside_a_models_tables_reaches_it(platform: Platform, data: st.DataObject) -> None:
    bundle = platform.bundle
    ranker = load_ranker_inputs(bundle)
    request = data.draw(corrupted(platform.valid_requests[RANK]))
    infos = request.item_infos[:1000] or [ItemInfo()]
    try:
        user, items = to_user(request.user_info), ranker.items([to_item(info) for info in infos])
        ranked = ranker.ids(user, items, to_provenance(request.provenance, len(infos)), request.now)
    except BadRequest:
        return
    ids = {"user_tower": bundle.encoder.users([user]), "item_tower": items.ids, "ranker": ranked}
    for model, matrix in ids.items():
        ModelSignature.load(bundle.path / model).check(matrix)  # InvalidInput, if one is out of bounds


def no_product_twice(reply: Any) -> bool:
    recalled = isinstance(reply, RecallResponse)
    skus = (
        [pair.nid for pair in reply.score_pairs] if recalled else [info.sku_id for info in reply.item_infos]
    )
    return len(skus) == len(set(skus))


def refused(platform: Platform, method: str, reason: str, **changed: Any) -> None:
    """A request in order but for this is a 400 whose text begins so, and the next one is answered."""
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
"""Milliseconds, which are often taken for seconds."""
LONG = "x" * 1_000_000
SHOWN = f"'{'x' * 80}'… (1000000 characters)"

OF_USERS = {RECALL: {}, RANK: {}, AS: {"user_id": ""}}
"""What takes a user's description, and how it is asked about a new user."""


def bought(sku: str = "1", **changed: float) -> Aggregates:
    """A product was bought twice, but for these numbers of its."""
    row = dict(zip(AGGREGATE_COLUMNS, (2, NOW - 99, NOW, 1.9, 1.9, 1, NOW, 0.2), strict=True)) | changed
    return Aggregates(sku_ids=[sku], numbers=np.array(list(row.values()), dtype="<f8").tobytes())


@pytest.mark.parametrize("method", OF_USERS)
@pytest.mark.parametrize("column", AGGREGATE_COLUMNS)
def test_a_number_of_the_aggregates_that_cannot_be_names_its_column(
    platform: Platform, method: str, column: str
) -> None:
    for value in (math.nan, math.inf, -math.inf, -1.0, 1e300, MS):
        user = UserInfo(age="5.0", aggregates=bought(**{column: value}))
        reason = f"user_info.aggregates.numbers: {column} of '1': expected 0 to "
        refused(platform, method, reason, user_info=user, **OF_USERS[method])


@pytest.mark.parametrize("method", OF_USERS)
def test_aggregates_are_numbers_of_distinct_products(platform: Platform, method: str) -> None:
    one = bought()
    twice = Aggregates(sku_ids=["1", "1"], numbers=one.numbers * 2)
    short = Aggregates(sku_ids=["1"], numbers=one.numbers[:-1])
    for aggregates, reason in (
        (twice, "user_info.aggregates.sku_ids: '1' appears twice"),
        (short, "user_info.aggregates.numbers: 63 bytes, expected 64 a product, 64"),
        (Aggregates(sku_ids=["1", "2"]), "user_info.aggregates.numbers: 0 bytes, expected 64 a product, 128"),
    ):
        user = UserInfo(age="5.0", aggregates=aggregates)
        refused(platform, method, reason, user_info=user, **OF_USERS[method])


@pytest.mark.parametrize("method", OF_USERS)
@pytest.mark.parametrize("moment", [-1, MS, 2**63 - 1, -(2**63)])
def test_a_moment_that_is_no_seconds_is_refused(platform: Platform, method: str, moment: int) -> None:
    reason = f"expected Unix seconds, 0 to 9999999999, got {moment}"
    refused(platform, method, f"now: {reason}", now=moment)
    session = UserInfo(history=[Interaction(sku_id="1", ts=NOW), Interaction(sku_id="2", ts=moment)])
    refused(platform, method, f"user_info.history[1].ts: {reason}", user_info=session, **OF_USERS[method])


def items(*skus: str, **fields: str) -> list[ItemInfo]:
    return [ItemInfo(sku_id=sku, **fields) for sku in skus]


@pytest.mark.parametrize(
    ("method", "field", "value", "reason"),
    [
        (UM, "user_id", LONG, "user_id: at most 256 characters, got 1000000"),
        (AS, "user_id", LONG, "user_id: at most 256 characters, got 1000000"),
        (AS, "user_info", UserInfo(age=LONG), "user_info: at most 524288 bytes, got 1000004"),
        (CM, "item_ids", ["1", LONG], "item_ids[1]: at most 128 characters, got 1000000"),
        (CM, "item_ids", ["1"] * 10_000, "item_ids: expected 1 to 1000 ids, got 10000"),
        (PUT, "item_infos", items(LONG), f"item_infos[0]: sku {SHOWN}: it is longer than 128 bytes"),
        (PUT, "item_infos", items("a", cate=LONG), "item_infos[0]: sku 'a': cate is longer than 128 bytes"),
        (PUT, "item_infos", items(*["a"] * 10_000), "item_infos: expected 1 to 1000 products, got 10000"),
        (REMOVE, "item_ids", ["x"] * 10_000, "item_ids: expected 1 to 1000 products, got 10000"),
        (STOCK, "item_ids", ["x"] * 10_000, "item_ids: expected 1 to 1000 products, got 10000"),
        (RECALL, "recall_type", LONG, f"recall_type: {SHOWN} is not one of cold_st"),
        (RECALL, "request_num", 2**32 - 1, "request_num: at most 1000, got 4294967295"),
        (AS, "request_num", 2**32 - 1, "request_num: at most 1000, got 4294967295"),
        (RANK, "item_infos", items(*"abcdefgh", LONG), "item_infos[8]: at most 1024 bytes, got 1000004"),
        (RANK, "item_infos", items(*["1"] * 10_000), "item_infos: expected 1 to 1000 products, got 10000"),
        *((method, "log_id", LONG, "log_id: at most 128 characters, got 1000000") for method in METHODS),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_what_is_too_long_or_too_much_is_refused(
    platform: Platform, method: str, field: str, value: Any, reason: str
) -> None:
    refused(platform, method, reason, **{field: value})


def test_a_version_that_is_too_long_to_read_is_not_read_out(platform: Platform) -> None:
    for method in (UPSERT_VECTORS, REMOVE_VECTORS):
        request = copy_of(platform.valid_requests[method])
        request.bundle_version = LONG
        reply = platform.ask(method, request)
        assert (reply.error.code, len(reply.error.text) < 300) == (503, True)


VECTORS = {
    "of another length": ([2.0, *[0.0] * 31], "length 2, expected 1"),
    "nothing": ([0.0] * 32, "length 0, expected 1"),
    "far too long": ([3e38] * 32, "length"),
    "infinite": ([math.inf, *[0.0] * 31], "a value is not finite"),
    "no number": ([math.nan] * 32, "a value is not finite"),
    "of another width": ([1.0] + [0.0] * 32, "33 values, expected 32"),
    "of no width": ([], "0 values, expected 32"),
}


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_that_would_spoil_the_search_is_refused(platform: Platform, case: str) -> None:
    vector, reason = VECTORS[case]
    pairs = [UpsertVectorsRequest.ItemVector(sku_id="new", vector=vector, cate="70")]
    refused(platform, UPSERT_VECTORS, f"vectors: sku 'new': {reason}", vectors=pairs)


@pytest.mark.parametrize("method", [RECALL, RANK])
def test_of_a_long_history_the_newest_are_read(platform: Platform, method: str) -> None:
    history = [Interaction(sku_id=str(2000 + n % 297), ts=NOW - n, type="ORDER") for n in range(100_000)]
    request = copy_of(platform.valid_requests[method])
    request.user_info.history.extend(history)
    reply = platform.ask(method, request)
    assert (reply.error.code, violations(reply)) == (200, [])
    assert reply.score_pairs
    platform.assert_answers_correctly(method)


def test_the_gateway_does_not_hand_on_what_would_choke_those_behind_it(platform: Platform) -> None:
    history = [Interaction(sku_id=str(n), ts=NOW, type="ORDER") for n in range(100_000)]
    for _ in range(6):  # as many failures open a breaker, and then others are degraded for it
        refused(
            platform,
            AS,
            "user_info: at most 524288 bytes, got ",
            user_info=UserInfo(history=history),
            user_id="",
        )


@pytest.mark.parametrize("method", METHODS)
def test_more_than_grpc_takes_is_resource_exhausted(platform: Platform, method: str) -> None:
    content = (
        platform.valid_requests[method].SerializeToString() + b"\xfa\x7f\x80\x80\x80\x02" + bytes(4 << 20)
    )
    code, details = platform.send(method, content)
    assert (code, "larger than max" in details) == (TOO_MUCH, True)
    platform.assert_answers_correctly(method)


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
    refusal = (grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a valid {name}")
    assert platform.send(method, UNREADABLE[case]) == refusal
    platform.assert_answers_correctly(method)


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
def test_damaged_bytes_are_answered_or_refused(platform: Platform, method: str, data: st.DataObject) -> None:
    content = bytearray(platform.valid_requests[method].SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=8))
    code, reply = platform.send(method, bytes(content))
    if code is OK:
        assert violations(reply) == []
    else:
        assert code is grpc.StatusCode.INVALID_ARGUMENT, reply
    platform.assert_answers_correctly(method)


@pytest.mark.parametrize("method", [UM, CM, AS])
def test_ids_are_not_keys(platform: Platform, method: str) -> None:
    """What the store keeps beside users and products cannot be asked for, whatever an id holds."""
    for own_id in ("8888##user_info", "ecrs##bundle", "8888##history", "##", "*", "8888\0", "8888\r\nGET x"):
        field = {"item_ids": [own_id]} if method == CM else {"user_id": own_id}
        reply = platform.ask(method, types(method)[0](**field))
        assert (reply.error.code, violations(reply)) == (500, [])

"""Attacks by messages: large, malformed, compressed, cancelled, or to methods that do not exist."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.item_info_pb2 import ItemInfo, ProvenanceTable
from ecrs.contract.rank_pb2 import RankRequest
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.user_info_pb2 import Aggregates, UserInfo
from ecrs.domain.aggregates import AGGREGATE_COLUMNS
from ecrs.domain.sizes import MAX_ITEMS
from ecrs.features.ranking import CHANNELS
from tests.attack.attack import attack
from tests.attack.shop import CALL_LIMIT_S, HOLD_S, Shop, at_rate, connected
from tests.invalid_requests import UNPARSABLE
from tests.platform import (
    AS,
    METHODS,
    PUT,
    RANK,
    RECALL,
    REMOVE,
    REMOVE_VECTORS,
    SERVICES,
    STOCK,
    UPSERT_VECTORS,
    types,
)

MIB = 2**20
LIMIT_CHARS = {"log_id": 128, "user_id": 256, "recall_type": 12, "bundle_version": 24}
"""Longest valid texts by field; others may have DEFAULT_CHARS."""
DEFAULT_CHARS = 128


def user_with_a_product_twice(products: int) -> UserInfo:
    """Return a user with aggregates of so many products, of which the last is given twice."""
    skus = [str(number) for number in range(products - 1)]
    numbers = bytes(8 * len(AGGREGATE_COLUMNS) * products)
    return UserInfo(age="5.0", aggregates=Aggregates(sku_ids=[*skus, skus[-1]], numbers=numbers))


def about_user(method: str, user: UserInfo) -> Message:
    """Return a request about a user that the caller describes."""
    items = [ItemInfo(sku_id=str(number)) for number in range(20)]
    return {
        AS: lambda: ASRequest(user_info=user),
        RECALL: lambda: RecallRequest(user_info=user),
        RANK: lambda: RankRequest(user_info=user, item_infos=items),
    }[method]()


async def flood(methods: tuple[str, ...], per_s: float, request: Callable[[str], Message]) -> None:
    """Call each of the methods `per_s` times a second with the same request."""

    async def one(method: str) -> None:
        content = request(method).SerializeToString()
        async with connected(service_of(method)) as channel:
            call = channel.unary_unary(method)
            await at_rate(per_s, lambda _: call(content, timeout=CALL_LIMIT_S))

    await asyncio.gather(*map(one, methods))


def service_of(method: str) -> str:
    return next(service for service, methods in SERVICES.items() if method in methods)


@attack()
async def users_with_a_product_twice(shop: Shop) -> None:
    """507 KB, which the gateway accepts."""
    user = user_with_a_product_twice(7_300)
    await flood((AS,), 4, lambda method: about_user(method, user))


@attack()
async def users_with_a_product_twice_to_recall_and_rank(shop: Shop) -> None:
    user = user_with_a_product_twice(7_300)
    await flood((RECALL, RANK), 4, lambda method: about_user(method, user))


@attack()
async def the_largest_users_to_recall_and_rank(shop: Shop) -> None:
    """4 MB, which is the most that gRPC accepts."""
    user = user_with_a_product_twice(57_000)
    assert 3.8 * MIB < user.ByteSize() < 4 * MIB
    await flood((RECALL, RANK), 1, lambda method: about_user(method, user))


@attack()
async def callers_of_a_thousand_products(shop: Shop) -> None:
    """Four callers make eleven calls a second together."""

    async def caller(number: int) -> None:
        users = itertools.cycle(shop.users[number:])
        async with connected("gateway") as channel:
            stub = ASServiceStub(channel)
            request = lambda: ASRequest(user_id=next(users), request_num=MAX_ITEMS)  # noqa: E731
            await at_rate(11 / 4, lambda _: stub.as_call(request(), timeout=CALL_LIMIT_S))

    await asyncio.gather(*map(caller, range(4)))


@attack()
async def every_field_at_its_limit(shop: Shop) -> None:
    await flood(METHODS, 1, largest_request)


@attack()
async def malformed_messages(shop: Shop) -> None:
    await garbage(lambda number: list(UNPARSABLE.values())[number % len(UNPARSABLE)])


@attack()
async def a_hundred_calls_a_second_of_methods_that_do_not_exist(shop: Shop) -> None:
    async with connected("gateway") as channel:
        call = lambda number: channel.unary_unary(f"/as.ASService/{number}")  # noqa: E731
        await at_rate(100, lambda number: call(number)(b"", timeout=CALL_LIMIT_S))


@attack()
async def metadata_of_a_megabyte(shop: Shop) -> None:
    metadata = (("x-large", "x" * MIB),)
    async with connected("gateway") as channel:
        call = channel.unary_unary(AS)
        await at_rate(4, lambda _: call(b"", timeout=CALL_LIMIT_S, metadata=metadata))


@attack()
async def messages_of_100_mb_compressed_to_100_kb(shop: Shop) -> None:
    unknown_field = b"\xfa\x7f\x80\x80\x80\x32" + bytes(100 * MIB)
    async with connected("gateway") as channel:
        call = channel.unary_unary(AS)
        gzip = grpc.Compression.Gzip
        await at_rate(0.6, lambda _: call(unknown_field, timeout=CALL_LIMIT_S, compression=gzip))


@attack()
async def two_hundred_calls_a_second_cancelled_after_a_millisecond(shop: Shop) -> None:
    async with connected("gateway") as channel:
        stub = ASServiceStub(channel)

        async def cancelled(number: int) -> None:
            call = stub.as_call(ASRequest(user_id=shop.users[number % len(shop.users)]), timeout=CALL_LIMIT_S)
            await asyncio.sleep(0.001)
            call.cancel()

        await at_rate(200, cancelled)


async def garbage(content: Callable[[int], bytes]) -> None:
    """Call every method ten times a second with bytes that are not its message."""

    async def one(method: str) -> None:
        async with connected(service_of(method)) as channel:
            call = channel.unary_unary(method)
            send: Callable[[int], Awaitable[Any]] = lambda number: call(content(number), timeout=CALL_LIMIT_S)  # noqa: E731
            await at_rate(10, send, HOLD_S)

    await asyncio.gather(*map(one, METHODS))


def largest_request(method: str) -> Any:
    """Return a request with every field at its limit, valid except that it changes a product twice."""
    request: Any = at_limit(types(method)[0])
    if method == RECALL:
        request.recall_type = ""
    if method == RANK:
        cells = len(CHANNELS) * MAX_ITEMS
        request.provenance.CopyFrom(
            ProvenanceTable(channels=CHANNELS, positions=[1] * cells, scores=[1.0] * cells)
        )
    if method in (REMOVE, STOCK, REMOVE_VECTORS):
        request.item_ids[-1] = request.item_ids[0]
    if method in (PUT, UPSERT_VECTORS):
        changed = request.item_infos if method == PUT else request.vectors
        changed[-1].CopyFrom(changed[0])
    return request


def at_limit(kind: type[Message], count: int = MAX_ITEMS) -> Message:
    """Return a message whose every field has its largest size, and `count` values if it is repeated."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            getattr(message, field.name).extend(_largest(field, number, 1) for number in range(count))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(_largest(field, 0, count))
        else:
            setattr(message, field.name, _largest(field, 0, count))
    return message


def _largest(field: FieldDescriptor, number: int, count: int) -> Any:
    """Return the largest value of a field, different for each number if it is a text."""
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return str(number).rjust(LIMIT_CHARS.get(field.name, DEFAULT_CHARS), "x")
        case FieldDescriptor.TYPE_MESSAGE:
            return at_limit(message_factory.GetMessageClass(field.message_type), count)
        case FieldDescriptor.TYPE_BYTES:
            return bytes(8 * len(AGGREGATE_COLUMNS) * count)
        case FieldDescriptor.TYPE_BOOL | FieldDescriptor.TYPE_ENUM:
            return 1
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            return 1.0
    return MAX_ITEMS

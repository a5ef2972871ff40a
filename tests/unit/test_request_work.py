"""Reading a request takes work in proportion to its size, whatever its fields contain.

Work is counted, not timed: executed bytecodes, and comparisons and hashes of the request's strings, which
happen in C and would otherwise be missed.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ecrs.domain.entities import User
from ecrs.gateway.query import Query, with_aggregates, with_session
from ecrs.recall.candidates import candidate_count, requested_channel
from ecrs.rpc.errors import BadRequest
from ecrs.wire.limits import LIMITS
from ecrs.wire.messages import describes_user, from_user, to_new_items, to_provenance, to_user
from ecrs.wire.validation import check_batch, check_skus, check_user_id
from tests.platform import (
    AS,
    CM,
    METHODS,
    PUT,
    RANK,
    RECALL,
    REMOVE,
    REMOVE_VECTORS,
    STOCK,
    UM,
    UPSERT_VECTORS,
    types,
)


class Work:
    """Counts the bytecodes and the string operations of a call."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, read: Callable[[Any], object], request: Message) -> int:
        """Return the work of `read(request)`, whether it accepts or refuses the request."""
        self.count = 0
        previous = sys.gettrace()
        sys.settrace(self._trace)
        try:
            read(CountedMessage(request, self))
        except BadRequest:
            pass
        finally:
            sys.settrace(previous)
        return self.count

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_globals["__name__"] == __name__:
            return None  # the counting itself
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.count += event == "opcode"
        return self._trace


class CountedText(str):
    work: Work

    __slots__ = ("work",)

    def __eq__(self, other: object) -> bool:
        self.work.count += 1
        return str.__eq__(self, other)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        self.work.count += 1
        return str.__hash__(self)


class CountedMessage:
    """A message whose strings, elements and nested messages count their use."""

    def __init__(self, message: Message, work: Work) -> None:
        self._message, self._work = message, work

    def __getattr__(self, name: str) -> Any:
        return counted(getattr(self._message, name), self._work)


class CountedElements(Sequence[Any]):
    def __init__(self, values: Any, work: Work) -> None:
        self._values, self._work = values, work

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        self._work.count += 1
        return counted(self._values[index], self._work)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def counted(value: Any, work: Work) -> Any:
    if isinstance(value, Message):
        return CountedMessage(value, work)
    if isinstance(value, str):
        text = CountedText(value)
        text.work = work
        return text
    return CountedElements(value, work) if hasattr(value, "extend") else value


def read_recommendation(request: Any) -> None:
    described = request.user_info if describes_user(request.user_info) else None
    query = Query.of(request.log_id, request.user_id, described, request.request_num, now=request.now)
    if query.described is not None:
        with_aggregates(query.described)
        with_session(from_user(User()), query.described)


def read_ranking(request: Any) -> None:
    to_provenance(request.provenance, len(request.item_infos))
    to_user(request.user_info)


def read_retrieval(request: Any) -> None:
    candidate_count(request.request_num)
    requested_channel(request.recall_type)
    to_user(request.user_info)


def read_batch(request: Any) -> None:
    check_batch("item_ids", list(request.item_ids))


READ: dict[str, Callable[[Any], object]] = {
    UM: lambda request: check_user_id(request.user_id),
    CM: lambda request: check_skus("item_ids", list(request.item_ids)),
    PUT: lambda request: to_new_items(request.item_infos),
    REMOVE: read_batch,
    STOCK: read_batch,
    RECALL: read_retrieval,
    UPSERT_VECTORS: lambda request: check_batch("vectors", [pair.sku_id for pair in request.vectors]),
    REMOVE_VECTORS: read_batch,
    RANK: read_ranking,
    AS: read_recommendation,
}
"""How each service reads a request before it calls a store, a model or another service."""

CHANNELS = 4
PER_ITEM = {"positions": CHANNELS, "scores": CHANNELS, "numbers": 64}
"""Values or bytes that a field has for each item."""


def fill(message: Message, n: int) -> None:
    """Give every field a value: `n` different elements or characters, of which the last repeats the first."""
    for field in message.DESCRIPTOR.fields:
        count = CHANNELS if field.name == "channels" else n * PER_ITEM.get(field.name, 1)
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for nested in [value.add() for _ in range(count)] if field.is_repeated else [value]:
                fill(nested, 3 if field.is_repeated else n)
        elif field.type == FieldDescriptor.TYPE_STRING:
            texts = [f"{field.name} {at % (count - 1)}" for at in range(count)]
            value.extend(texts) if field.is_repeated else setattr(message, field.name, texts[0])
        elif field.is_repeated:
            value.extend([1] * count)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, field.name, bytes(count))


def fields(message_type: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all fields that can be long: repeated ones, strings and bytes."""
    for field in message_type.fields:
        if field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield (*path, field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE and len(path) < 2:
            yield from fields(field.message_type, (*path, field.name))


def lengthened(message: Message, path: tuple[str, ...], n: int) -> Message:
    """Return a copy in which the field at `path` alone has `n` elements or characters."""
    copy = type(message)()
    copy.CopyFrom(message)
    parent: Any = copy
    for name in path[:-1]:
        value = getattr(parent, name)
        parent = value[0] if hasattr(value, "extend") else value
    field, value = parent.DESCRIPTOR.fields_by_name[path[-1]], getattr(parent, path[-1])
    if field.is_repeated:
        first = value[0]
        del value[:]
        value.extend(
            [f"{at % (n - 1)}" for at in range(n)] if isinstance(first, str) else [first for _ in range(n)]
        )
    else:
        setattr(parent, path[-1], b"x" * n if isinstance(value, bytes) else "x" * n)
    return copy


def request(method: str, n: int) -> Message:
    message = types(method)[0]()
    fill(message, n)
    if hasattr(message, "request_num"):
        message.request_num = 20
    if hasattr(message, "recall_type"):
        message.recall_type = ""
    return message


def assert_linear(small: int, large: int) -> None:
    """Assert that four times the size takes little more than four times the work."""
    assert large <= 5 * small + 1_000, (small, large)


def test_every_method_is_read_and_limited() -> None:
    assert set(READ) == set(LIMITS) == set(METHODS)


@pytest.mark.parametrize("size", [100, 250, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_work_is_in_proportion_to_the_size_of_the_request(method: str, size: int) -> None:
    work = Work()
    assert_linear(*(work.of(READ[method], request(method, n)) for n in (size, 4 * size)))


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method in METHODS for path in fields(types(method)[0].DESCRIPTOR)],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else value,
)
def test_work_is_in_proportion_to_the_length_of_each_field(method: str, path: tuple[str, ...]) -> None:
    work, valid = Work(), request(method, 10)
    for size in (100, 1000, 5000):
        small, large = (work.of(READ[method], lengthened(valid, path, n)) for n in (size, 4 * size))
        assert_linear(small, large)

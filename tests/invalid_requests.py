"""Invalid requests, as a broken or hostile client may send them, and the rules that every reply must follow.

`corrupted` works on the protobuf descriptors, so that it covers new fields too.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

CODES = {200, 400, 500, 503, 504}
MAX_TEXT_CHARS = 1_000
"""Longest text of an error."""
INTERNALS = ("Traceback", "Error(", "Exception", "<class", ".py", "google.protobuf", "numpy", "ecrs.")

HUGE = 100_000
MAX_BYTES = 5_000_000
"""Largest size of a repeated field: more than gRPC accepts, but not so much that memory becomes the limit."""
TEXTS = (
    *("1", "8888", "99654", "5.0", "-1", "0", "70"),  # valid values of other fields
    *("nan", "inf", "-inf", "1e999", "[1]", "null", "None", "__import__('os')", "' or 1=1", "../../etc"),
    *(" ", "\0", "\n", "\r\n", "\x7f", "\u2028", "\ufeff", "\U0010ffff", "e\u0301" * 50, "-" * 200),
    *("a:b", "a,b", "a;b", "1##user_info", "ecrs##bundle", "##", "1##product_info##", "%s%n", "{}", '"'),
    *("x" * HUGE, "ü" * HUGE, "\x01" * HUGE, "-" * HUGE + ".0"),
)
UNPARSABLE = {
    "a string that is not UTF-8": b"\x0a\x02\xff\xfe",
    "a truncated field": b"\x0a\x7fabc",
    "field number 0": b"\x00\x01",
    "a varint without an end": b"\x18" + b"\xff" * 11,
    "a group": b"\x0b",
    "JSON": b'{"user_id": "8888"}',
}
"""Bytes that are not a message of any method."""


def floats(width: int) -> st.SearchStrategy[float]:
    """Return floats of `width` bits, including NaN, the infinities and -0.0."""
    extreme = [math.nan, math.inf, -math.inf, -0.0, 3.4e38, -3.4e38, 5e-324, -1.0, *([1e308] * (width == 64))]
    return st.sampled_from(extreme) | st.floats(width=width)  # type: ignore[arg-type]


def integers(low: int, high: int) -> st.SearchStrategy[int]:
    edges = [low, low + 1, 0, 1, 2, high // 2, high - 1, high, min(1_700_000_000_000, high)]
    return st.sampled_from(edges) | st.integers(low, high)


_NUMBERS = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_FLOAT: floats(32),
    FieldDescriptor.TYPE_DOUBLE: floats(64),
    FieldDescriptor.TYPE_UINT32: integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_ENUM: integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=200),
}


@st.composite
def corrupted(draw: st.DrawFn, valid: Message) -> Message:
    """Return a copy of a valid request with one to three invalid values."""
    request = type(valid)()
    request.CopyFrom(valid)
    for _ in range(draw(st.integers(1, 3))):
        _corrupt(draw, request)
    return request


def _corrupt(draw: st.DrawFn, message: Message) -> None:
    field = draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
    value = getattr(message, field.name)
    if field.is_repeated:
        _corrupt_list(draw, field, value)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        _corrupt(draw, value)
    else:
        packed = bytes(value) if field.type == FieldDescriptor.TYPE_BYTES else b""
        setattr(message, field.name, draw(_bad_number(packed) if packed else _bad(field)))


def _corrupt_list(draw: st.DrawFn, field: FieldDescriptor, values: Any) -> None:
    """Make one of the values invalid, remove them all, or repeat one far too often."""
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    if values and draw(st.booleans()):
        index = draw(st.integers(0, len(values) - 1))
        if is_message:
            _corrupt(draw, values[index])
        else:
            values[index] = draw(_bad(field))
        return
    if is_message:
        value = values[0] if values else values.add()
    else:
        value = values[0] if values and draw(st.booleans()) else draw(_bad(field))
    maximum = MAX_BYTES // value.ByteSize() if is_message and value.ByteSize() else 10_000
    if isinstance(value, str) and value:
        maximum = MAX_BYTES // len(value.encode())
    repeated_values = [value] * min(draw(st.sampled_from([0, 2, 1_001, 10_000])), maximum)
    del values[:]
    values.extend(repeated_values)


def _bad_number(packed: bytes) -> st.SearchStrategy[bytes]:
    """Return packed float64 values in which one is extreme, or of which the end is cut off."""
    offset = st.integers(0, len(packed) // 8 - 1).map(lambda number: 8 * number)
    bad = st.tuples(offset, floats(64).map(lambda number: struct.pack("<d", number)))
    return bad.map(lambda at: packed[: at[0]] + at[1] + packed[at[0] + 8 :]) | offset.map(
        lambda end: packed[:end]
    )


def _bad(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    text = field.type == FieldDescriptor.TYPE_STRING
    return st.sampled_from(TEXTS) | st.text(max_size=20) if text else _NUMBERS[field.type]


def violations(reply: Message) -> list[str]:
    """Return how a reply breaks the rules that hold for every request; empty if it does not."""
    code, text = reply.error.code, reply.error.text
    problems = []
    if code not in CODES:
        problems.append(f"code {code}")
    if (code == 200) == bool(text):
        problems.append(f"code {code} with the text {text!r}")
    if code == 500 and "server get" not in text:
        problems.append(f"500 is for unknown users and products, not for: {text[:200]}")
    elif code != 500 and len(text) > MAX_TEXT_CHARS:
        problems.append(f"a reason of {len(text):,} characters")
    problems += [f"{name!r} in the reason: {text[:300]}" for name in INTERNALS if name in text]
    problems += [f"{name} is {number}" for name, number in _floats(reply) if not math.isfinite(number)]
    return problems


MAY_BE_NAN = ("item_info.ProvenanceTable.scores",)
FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)


def _floats(message: Message) -> Iterator[tuple[str, float]]:
    """Yield all floats by field name, except in fields where NaN stands for a missing number."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for nested in values:
                yield from _floats(nested)
        elif field.type in FLOATS and field.full_name not in MAY_BE_NAN:
            yield from ((field.name, number) for number in values)

"""Bad input: requests that no client of ours would send, and the law for whatever comes back.

`hurt` goes by the wire's own descriptors, so that a field which is added is hurt as well.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

CODES = {200, 400, 500, 503, 504}
TEXT_CHARS = 1_000
"""Nobody reads a longer reason."""
INTERNALS = ("Traceback", "Error(", "Exception", "<class", ".py", "google.protobuf", "numpy", "ecrs.")

HUGE = 100_000
MOST_BYTES = 5_000_000
"""Of a repeated field: more than gRPC takes, and not so much that the test is about memory."""
TEXTS = (
    *("1", "8888", "99654", "5.0", "-1", "0", "70"),  # what is known, in a place that is not its own
    *("nan", "inf", "-inf", "1e999", "[1]", "null", "None", "__import__('os')", "' or 1=1", "../../etc"),
    *(" ", "\0", "\n", "\r\n", "\x7f", "\u2028", "\ufeff", "\U0010ffff", "e\u0301" * 50, "-" * 200),
    *("a:b", "a,b", "a;b", "1##user_info", "ecrs##bundle", "##", "1##product_info##", "%s%n", "{}", '"'),
    *("x" * HUGE, "ü" * HUGE, "\x01" * HUGE, "-" * HUGE + ".0"),
)


def floats(width: int) -> st.SearchStrategy[float]:
    """Of the wire's width; NaN, the infinities and -0.0 among them."""
    extreme = [math.nan, math.inf, -math.inf, -0.0, 3.4e38, -3.4e38, 5e-324, -1.0, *([1e308] * (width == 64))]
    return st.sampled_from(extreme) | st.floats(width=width)  # type: ignore[arg-type]


def whole(low: int, high: int) -> st.SearchStrategy[int]:
    edges = [low, low + 1, 0, 1, 2, high // 2, high - 1, high, min(1_700_000_000_000, high)]
    return st.sampled_from(edges) | st.integers(low, high)


_NUMBERS = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_FLOAT: floats(32),
    FieldDescriptor.TYPE_DOUBLE: floats(64),
    FieldDescriptor.TYPE_UINT32: whole(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: whole(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_ENUM: whole(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: whole(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: whole(0, 2**64 - 1),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=200),
}


@st.composite
def hurt(draw: st.DrawFn, ordinary: Message) -> Message:
    """A copy of a request in order, in which one to three things are bad."""
    request = type(ordinary)()
    request.CopyFrom(ordinary)
    for _ in range(draw(st.integers(1, 3))):
        _hurt(draw, request)
    return request


def _hurt(draw: st.DrawFn, message: Message) -> None:
    field = draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
    value = getattr(message, field.name)
    if field.is_repeated:
        _hurt_list(draw, field, value)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        _hurt(draw, value)
    else:
        packed = bytes(value) if field.type == FieldDescriptor.TYPE_BYTES else b""
        setattr(message, field.name, draw(_bad_number(packed) if packed else _bad(field)))


def _hurt_list(draw: st.DrawFn, field: FieldDescriptor, values: Any) -> None:
    """One of the values is bad, or there are none, or far too many."""
    of_messages = field.type == FieldDescriptor.TYPE_MESSAGE
    if values and draw(st.booleans()):
        place = draw(st.integers(0, len(values) - 1))
        if of_messages:
            _hurt(draw, values[place])
        else:
            values[place] = draw(_bad(field))
        return
    if of_messages:
        one = values[0] if values else values.add()
    else:
        one = values[0] if values and draw(st.booleans()) else draw(_bad(field))
    most = MOST_BYTES // one.ByteSize() if of_messages and one.ByteSize() else 10_000
    if isinstance(one, str) and one:
        most = MOST_BYTES // len(one.encode())
    many = [one] * min(draw(st.sampled_from([0, 2, 1_001, 10_000])), most)
    del values[:]
    values.extend(many)


def _bad_number(packed: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that are float64 values: one is bad, or an end is missing."""
    place = st.integers(0, len(packed) // 8 - 1).map(lambda number: 8 * number)
    bad = st.tuples(place, floats(64).map(lambda number: struct.pack("<d", number)))
    return bad.map(lambda at: packed[: at[0]] + at[1] + packed[at[0] + 8 :]) | place.map(
        lambda end: packed[:end]
    )


def _bad(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    text = field.type == FieldDescriptor.TYPE_STRING
    return st.sampled_from(TEXTS) | st.text(max_size=20) if text else _NUMBERS[field.type]


def faults(reply: Message) -> list[str]:
    """What is wrong with a reply, whatever was asked: nothing, if it keeps the law."""
    code, text = reply.error.code, reply.error.text
    found = []
    if code not in CODES:
        found.append(f"code {code}")
    if (code == 200) == bool(text):
        found.append(f"code {code} with the text {text!r}")
    if code == 500 and "server get" not in text:
        found.append(f"500 is for unknown users and products, not for: {text[:200]}")
    elif code != 500 and len(text) > TEXT_CHARS:
        found.append(f"a reason of {len(text):,} characters")
    found += [f"{name!r} in the reason: {text[:300]}" for name in INTERNALS if name in text]
    found += [f"{name} is {number}" for name, number in _floats(reply) if not math.isfinite(number)]
    return found


MAY_BE_NAN = ("item_info.ProvenanceTable.scores",)
FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)


def _floats(message: Message) -> Iterator[tuple[str, float]]:
    """All floats but where NaN says that there is no such number."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for one in values:
                yield from _floats(one)
        elif field.type in FLOATS and field.full_name not in MAY_BE_NAN:
            yield from ((field.name, number) for number in values)

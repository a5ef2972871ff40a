"""Damaged JSON, as another program may write it into a store."""

import json
import math
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, 99, 10**10, 10**30, 1e23, 1e300, math.nan, math.inf, -math.inf),
    *("", "1", "-1", "nan", " ", "\0", "\n", "\u2028", "\U0010ffff", "\ud800", "x" * 200, "ü" * 2000),
    *([], {}, [[]], [[[[]]]], {"sku_ids": []}, ["1", 1, 2], [1, "1"]),
)
"""Values of the wrong type or out of range."""


@st.composite
def damaged(draw: st.DrawFn, valid: Any) -> bytes:
    """Return `valid` as JSON with one to three wrong values, or with damaged bytes, or any bytes at all."""
    match draw(st.sampled_from(("values", "bytes", "any"))):
        case "values":
            holder = [json.loads(json.dumps(valid))]
            for _ in range(draw(st.integers(1, 3))):
                _replace_one(draw, holder)
            return json.dumps(holder[0], ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
        case "bytes":
            content = bytearray(json.dumps(valid).encode())
            for position in draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
                content[position] = draw(st.integers(0, 255))
            return bytes(content[: draw(st.integers(0, len(content)))])
        case _:
            return draw(st.binary(max_size=200))


def _replace_one(draw: st.DrawFn, holder: Any) -> None:
    """Replace or repeat a random value inside the list or object `holder`, or remove it from an object."""
    place = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
    value = holder[place]
    if isinstance(value, list | dict) and value and draw(st.integers(0, 3)):
        _replace_one(draw, value)
    elif isinstance(value, list) and value and draw(st.booleans()):
        holder[place] = value * draw(st.sampled_from((2, 100, 20_000)))
    elif isinstance(holder, dict) and draw(st.booleans()):
        holder[place + "?"] = holder.pop(place)
    else:
        holder[place] = deepcopy(draw(st.sampled_from(VALUES)))

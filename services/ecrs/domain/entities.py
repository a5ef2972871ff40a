"""Users and items, and the limits on their values."""

import re
from dataclasses import dataclass, field

import numpy as np

from ecrs.domain.actions import Interaction
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, TIMESTAMP_COLUMNS, Aggregates

HISTORY_LENGTH = 50
"""Number of a user's newest interactions that are stored, sent and encoded."""

NEW_USER_IDS = frozenset({"", "0", "-1"})
"""User ids that mean "no id": the request describes the user by profile."""

UNKNOWN = "-1"
"""Value of a profile field or attribute that is not known, as the data sets write it."""

SEPARATORS = ",:;"
"""Characters that separate values in files; a sku must not contain them."""

MAX_SKU_BYTES = 128
"""Longest sku, brand, shop or category in UTF-8. The key of the vector store has this length."""

MAX_ITEM_BYTES = 4 * MAX_SKU_BYTES
"""Longest sku, brand, shop and category of an item together. One of them may be longer than MAX_SKU_BYTES,
such as the path of a category: data sets have such values, although cm does not accept them."""

MAX_TIMESTAMP = 9_999_999_999
"""Largest valid timestamp in Unix seconds: ten digits, as in `actions.csv`, so milliseconds are refused."""

LARGEST_AGGREGATES = np.array(
    [MAX_TIMESTAMP if name in TIMESTAMP_COLUMNS else 2**32 - 1 for name in AGGREGATE_COLUMNS],
    dtype=np.float64,
)
"""Largest valid value of each column of `Aggregates.numbers`."""


@dataclass(frozen=True, slots=True)
class User:
    """A user's profile, newest interactions, and aggregates over all of them.

    Profile values are strings in the shop's own spelling ("5.0"), `id` is empty for a new user, and `history`
    is newest first.
    """

    id: str = ""
    age: str = UNKNOWN
    sex: str = UNKNOWN
    city_level: str = UNKNOWN
    province: str = UNKNOWN
    city: str = UNKNOWN
    county: str = UNKNOWN
    history: tuple[Interaction, ...] = ()
    aggregates: Aggregates = field(default_factory=Aggregates)


@dataclass(frozen=True, slots=True)
class Item:
    """An item's record; a value that the shop does not give is UNKNOWN."""

    sku: str
    brand: str = UNKNOWN
    shop: str = UNKNOWN
    category: str = UNKNOWN
    out_of_stock: bool = False


PROFILE_FIELDS = ("age", "sex", "city_level", "province", "city", "county")
ITEM_FIELDS = ("sku", "brand", "shop", "category")


def sku_fault(sku: str) -> str | None:
    """Return why the files and stores cannot hold this sku; None if it is valid."""
    if not sku:
        return "it is empty"
    if is_long(sku):
        return f"it is longer than {MAX_SKU_BYTES} bytes"
    if sku != sku.strip():
        return "it begins or ends with a space"
    if has_control(sku) or _SEPARATOR.search(sku):
        return f"it holds a control character or one of {SEPARATORS!r}"
    return None


def is_long(value: str) -> bool:
    """True if a value of an item is longer than MAX_SKU_BYTES."""
    return len(value) > MAX_SKU_BYTES or len(value.encode(errors="surrogatepass")) > MAX_SKU_BYTES


def has_control(value: str) -> bool:
    """True if a value contains a control character, a line or paragraph separator, or a surrogate.

    Files and logs cannot hold them.
    """
    return _CONTROL.search(value) is not None


_SEPARATOR = re.compile(f"[{SEPARATORS}]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""The characters of the Unicode categories Cc, Zl, Zp and Cs."""


def impossible_number(numbers: np.ndarray) -> tuple[int, int] | None:
    """Return row and column of the first of `Aggregates.numbers` that is not from 0 to LARGEST_AGGREGATES.

    None if all numbers are valid; NaN is not.
    """
    valid = (numbers >= 0) & (numbers <= LARGEST_AGGREGATES)
    if valid.all():
        return None
    row, column = np.argwhere(~valid)[0].tolist()
    return row, column


def _fields(line: str, names: tuple[str, ...]) -> list[str]:
    """Split a line of a record file into its fields, UNKNOWN for empty ones; ValueError names the fault."""
    values = [value.strip() for value in line.rstrip("\r\n").split(":")]
    if len(values) != len(names):
        raise ValueError(f"expected {len(names)} fields {':'.join(names)}, found {len(values)}")
    if not values[0]:
        raise ValueError(f"{names[0]} is empty")
    return [value or UNKNOWN for value in values]

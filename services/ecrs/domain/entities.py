"""What a shop knows: users, items and what users did to items.

Also the lines of `users.dat`, `products.dat` and `histories.dat`, which are these in text.
"""

import unicodedata
from dataclasses import dataclass, field

from ecrs.domain.actions import Interaction
from ecrs.domain.aggregates import Aggregates

HISTORY_LENGTH = 50
"""A user's newest interactions that are kept, sent and encoded."""

NEW_USER_IDS = frozenset({"", "0", "-1"})
"""Ids that mean "no id": the request describes the user by profile."""

UNKNOWN = "-1"
"""How the data sets write a profile value or attribute they do not know."""


SEPARATORS = ",:;"
"""What the files put between values: no sku may hold one."""

MAX_SKU_BYTES = 128
"""The longest sku in UTF-8: what the vector store's key has room for; also of brand, shop and category."""

MAX_TIMESTAMP = 9_999_999_999
"""The latest moment taken, Unix seconds: ten digits, as `actions.csv` has them, so milliseconds are none."""


@dataclass(frozen=True, slots=True)
class User:
    """A user's profile, newest interactions, and aggregates over all of them.

    Profile values are strings as the shop writes them ("5.0"); `id` is empty for a new user;
    `history` is newest first.
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
    """An item's record; a value is UNKNOWN where the shop does not give it."""

    sku: str
    brand: str = UNKNOWN
    shop: str = UNKNOWN
    category: str = UNKNOWN
    out_of_stock: bool = False


PROFILE_FIELDS = ("age", "sex", "city_level", "province", "city", "county")
ITEM_FIELDS = ("sku", "brand", "shop", "category")


def sku_fault(sku: str) -> str | None:
    """What is wrong with a sku that the files and stores could not keep; None if it is a good one."""
    if not sku:
        return "it is empty"
    if is_long(sku):
        return f"it is longer than {MAX_SKU_BYTES} bytes"
    if sku != sku.strip():
        return "it begins or ends with a space"
    if has_control(sku) or any(character in SEPARATORS for character in sku):
        return f"it holds a control character or one of {SEPARATORS!r}"
    return None


def is_long(value: str) -> bool:
    """Whether a value of an item is longer than MAX_SKU_BYTES."""
    return len(value) > MAX_SKU_BYTES or len(value.encode(errors="surrogatepass")) > MAX_SKU_BYTES


def has_control(value: str) -> bool:
    """Whether a value holds what ends a line, or is no character: neither files nor logs take it."""
    return any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value)


def _fields(line: str, names: tuple[str, ...]) -> list[str]:
    values = [value.strip() for value in line.rstrip("\r\n").split(":")]
    if len(values) != len(names):
        raise ValueError(f"expected {len(names)} fields {':'.join(names)}, found {len(values)}")
    if not values[0]:
        raise ValueError(f"{names[0]} is empty")
    return [value or UNKNOWN for value in values]

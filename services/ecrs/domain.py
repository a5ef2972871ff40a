"""What a shop knows: users, items and what users did to items.

Also the lines of `users.dat`, `products.dat` and `histories.dat`, which are these in text.
"""

from dataclasses import dataclass
from enum import IntEnum

HISTORY_LENGTH = 50
"""A user's newest interactions that are kept, sent and encoded."""

NEW_USER_IDS = frozenset({"", "0", "-1"})
"""Ids that mean "no id": the request describes the user by profile."""

UNKNOWN = "-1"
"""How the data sets write a profile value or attribute they do not know."""


class ActionType(IntEnum):
    """What a user did; JData's numbers, and the wire's."""

    UNKNOWN = 0
    VIEW = 1
    ORDER = 2
    FOLLOW = 3
    COMMENT = 4
    CART = 5

    @classmethod
    def parse(cls, text: str) -> "ActionType":
        """A type by name or number; ValueError says what would have been right."""
        named = cls.__members__.get(text.strip().upper())
        if named is None and text.strip().isdecimal() and int(text) in cls._value2member_map_:
            named = cls(int(text))
        if named is None or named is cls.UNKNOWN:
            raise ValueError(f"action type {text!r} is none of view, order, follow, comment, cart, 1-5")
        return named


@dataclass(frozen=True, slots=True)
class Interaction:
    sku: str
    ts: int  # Unix seconds
    type: ActionType = ActionType.ORDER


@dataclass(frozen=True, slots=True)
class User:
    """A user's profile and newest interactions.

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


@dataclass(frozen=True, slots=True)
class Item:
    sku: str
    brand: str = UNKNOWN
    shop: str = UNKNOWN
    category: str = UNKNOWN


PROFILE_FIELDS = ("age", "sex", "city_level", "province", "city", "county")
ITEM_FIELDS = ("sku", "brand", "shop", "category")


def parse_user(line: str) -> User:
    """`id:age:sex:city_level:province:city:county`; ValueError names the fault."""
    user_id, *profile = _fields(line, ("id", *PROFILE_FIELDS))
    return User(user_id, **dict(zip(PROFILE_FIELDS, profile, strict=True)))  # type: ignore[arg-type]


def format_user(user: User) -> str:
    return ":".join((user.id, *(getattr(user, name) for name in PROFILE_FIELDS)))


def parse_item(line: str) -> Item:
    """`sku:brand:shop:category`; ValueError names the fault."""
    return Item(*_fields(line, ITEM_FIELDS))


def format_item(item: Item) -> str:
    return ":".join((item.sku, item.brand, item.shop, item.category))


def parse_history(line: str) -> tuple[str, tuple[Interaction, ...]]:
    """`id:sku,ts,type;sku,ts,type…`, newest first; ValueError names the fault."""
    user_id, separator, rest = line.rstrip("\r\n").partition(":")
    if not user_id or not separator:
        raise ValueError("expected id:sku,ts,type;…")
    interactions = []
    for part in filter(None, rest.split(";")):
        sku, ts, kind = part.split(",")
        interactions.append(Interaction(sku, int(ts), ActionType(int(kind))))
    return user_id, tuple(interactions)


def format_history(user_id: str, history: tuple[Interaction, ...]) -> str:
    return f"{user_id}:" + ";".join(f"{i.sku},{i.ts},{int(i.type)}" for i in history)


def _fields(line: str, names: tuple[str, ...]) -> list[str]:
    values = [value.strip() for value in line.rstrip("\r\n").split(":")]
    if len(values) != len(names):
        raise ValueError(f"expected {len(names)} fields {':'.join(names)}, found {len(values)}")
    if not values[0]:
        raise ValueError(f"{names[0]} is empty")
    return [value or UNKNOWN for value in values]

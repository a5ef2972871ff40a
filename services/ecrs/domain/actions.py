"""What users do to products."""

from enum import IntEnum
from typing import NamedTuple


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


class Interaction(NamedTuple):
    sku: str
    ts: int  # Unix seconds
    type: ActionType = ActionType.ORDER

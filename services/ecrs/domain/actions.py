"""Interactions of users with items."""

from enum import IntEnum
from typing import NamedTuple


class ActionType(IntEnum):
    """The kind of an interaction. The numbers are those of the JData data set and of the wire format."""

    UNKNOWN = 0
    VIEW = 1
    ORDER = 2
    FOLLOW = 3
    COMMENT = 4
    CART = 5

    @classmethod
    def parse(cls, text: str) -> "ActionType":
        """Return the type that `text` gives by name or number; ValueError lists the valid ones."""
        named = cls.__members__.get(text.strip().upper())
        if named is None and text.strip().isdecimal() and int(text) in cls._value2member_map_:
            named = cls(int(text))
        if named is None or named is cls.UNKNOWN:
            raise ValueError(f"action type {text!r} is none of view, order, follow, comment, cart, 1-5")
        return named


class Interaction(NamedTuple):
    """One action of a user on an item."""

    sku: str
    ts: int  # Unix seconds
    type: ActionType = ActionType.ORDER

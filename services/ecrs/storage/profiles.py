"""Interfaces of the profile store, which holds users and items."""

from collections.abc import Sequence
from typing import Protocol

from ecrs.domain.entities import Item, User


class ProfileStore(Protocol):
    """What um and cm read.

    Every method raises Unavailable if the store is away, and DeadlineExceeded past `timeout_s`.
    """

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        """The user with history and aggregates, both of one bundle version; None if unknown.

        Raises MalformedData.
        """

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        """The items in the order of `skus`; None if unknown, or if the stored record is malformed."""

    async def version(self, timeout_s: float) -> str | None:
        """The bundle version that the store was seeded with; None before the first seeding.

        Raises MalformedData.
        """


class ItemStore(ProfileStore, Protocol):
    """What cm also writes. No sku may be twice in a call; a call takes effect as a whole or not at all."""

    async def put(self, items: Sequence[Item], timeout_s: float) -> None:
        """Write the records and whether the items are in stock."""

    async def remove(self, skus: Sequence[str], timeout_s: float) -> list[str]:
        """Remove the items. Returns the skus that were not known."""

    async def set_stock(self, skus: Sequence[str], *, in_stock: bool, timeout_s: float) -> list[str]:
        """Mark the known ones of `skus`. Returns the skus that are not known."""

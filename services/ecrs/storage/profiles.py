"""Interfaces of the profile store, which holds the records of users and items."""

from collections.abc import Sequence
from typing import Protocol

from ecrs.domain.entities import Item, User


class ProfileStore(Protocol):
    """Read access, as um and cm need it.

    Every method raises Unavailable if the store cannot be reached or refuses the call, and DeadlineExceeded
    if it does not answer within `timeout_s`.
    """

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        """Return a user with history and aggregates, both of the same bundle version; None if unknown.

        Raises MalformedData if a stored value cannot be parsed.
        """

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        """Return the items in the order of `skus`; None for an unknown item or a malformed record."""

    async def version(self, timeout_s: float) -> str | None:
        """Return the bundle version that the store was seeded with; None before the first seed.

        Raises MalformedData if the stored version cannot be parsed.
        """


class ItemStore(ProfileStore, Protocol):
    """Read and write access, as cm needs it.

    `skus` must not contain duplicates. Each write takes effect as a whole or not at all.
    """

    async def put(self, items: Sequence[Item], timeout_s: float) -> None:
        """Write the records, and mark each item as in stock or out of stock."""

    async def remove(self, skus: Sequence[str], timeout_s: float) -> list[str]:
        """Remove the items and return the skus that were unknown."""

    async def set_stock(self, skus: Sequence[str], *, in_stock: bool, timeout_s: float) -> list[str]:
        """Mark the known items as in stock or out of stock, and return the skus that are unknown."""

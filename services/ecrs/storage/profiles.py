"""Interfaces of the profile store, which holds the records of users and items."""

from collections.abc import Sequence
from typing import Protocol

from ecrs.domain.entities import Item, User
from ecrs.rpc.errors import Unavailable
from ecrs.storage.item_journal import ItemChange


class NotSeeded(Unavailable):
    """The store holds no bundle: it was not seeded yet, or was emptied since.

    While it holds none, a record that is missing does not mean that the user or item is unknown.
    """

    def __init__(self) -> None:
        super().__init__("the profile store is empty: seed-redis has not finished")


class ProfileStore(Protocol):
    """Read access, as um and cm need it.

    Every method raises Unavailable if the store cannot be reached or refuses the call, or if the record of
    its bundle is malformed, and DeadlineExceeded if it does not answer within `timeout_s`. A malformed record
    of a user or an item is counted and logged, and fails nothing.
    """

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        """Return a user with history and aggregates, both of the same bundle version; None if unknown.

        Malformed history or aggregates are empty, and the values of a malformed profile UNKNOWN. Raises
        NotSeeded.
        """

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        """Return the items in the order of `skus`; None for an unknown item or a malformed record.

        Raises NotSeeded.
        """

    async def version(self, timeout_s: float) -> str | None:
        """Return the bundle version that the store was seeded with; None if it holds no bundle."""


class ItemStore(ProfileStore, Protocol):
    """Read and write access to the items, as cm needs it.

    The records follow the journal of item changes. The store keeps the position up to which it has applied
    the journal, and also the positions of other followers, by name.
    """

    async def missing(self, skus: Sequence[str], timeout_s: float) -> list[str]:
        """Return those of `skus` that have no record."""

    async def position(self, follower: str, timeout_s: float) -> str:
        """Return the position of a follower; START if it has none yet."""

    async def set_position(self, follower: str, position: str, timeout_s: float) -> None:
        """Set the position of a follower."""

    async def apply(
        self, follower: str, after: str, upto: str, changes: Sequence[ItemChange], timeout_s: float
    ) -> bool:
        """Apply changes to records and stock, and move the follower from position `after` to `upto`.

        That happens in one step. Does nothing and returns False if the follower is not at `after`.
        """

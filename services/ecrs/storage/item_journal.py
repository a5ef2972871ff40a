"""Interface of the journal of item changes: what people changed while the platform ran.

The journal outlives every bundle. It holds the latest change of each item, in the order of the changes. What
other stores hold follows from it: each of them remembers the position up to which it has applied the journal,
and reads on from there. Applying a change twice has no further effect.
"""

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import structlog

from ecrs.domain.entities import UNKNOWN, Item, is_long, sku_fault
from ecrs.metrics import JOURNAL_ENTRIES_SKIPPED

log = structlog.get_logger()

START = ""
"""The position before the first change."""
MAX_DIGITS = 18
"""Longest sequence number; both journals hold 64 bits."""
PAGE_LIMIT = 1000
"""Changes that are read and applied at a time, as many as one call to recall or to a model may hold."""


class ChangeKind(StrEnum):
    """What the last change left of an item's record."""

    PUT = "put"  # the record of the change
    REMOVED = "removed"  # no record
    STOCK = "stock"  # the bundle's record: only the stock was marked


class ItemChange(NamedTuple):
    """The latest change of an item; `brand`, `shop` and `category` are those of an item that was put."""

    sku: str
    kind: ChangeKind
    out_of_stock: bool = False
    brand: str = UNKNOWN
    shop: str = UNKNOWN
    category: str = UNKNOWN

    @property
    def item(self) -> Item:
        """The item that was put."""
        return Item(self.sku, self.brand, self.shop, self.category, self.out_of_stock)

    @property
    def replaces_record(self) -> bool:
        """True if the bundle's record of the item, if there is one, does not count any more."""
        return self.kind is not ChangeKind.STOCK

    @classmethod
    def put(cls, item: Item) -> "ItemChange":
        """Return the change that adds or replaces an item."""
        return cls(item.sku, ChangeKind.PUT, item.out_of_stock, item.brand, item.shop, item.category)


class Page(NamedTuple):
    """Changes in their order, and the position after the last one; `is_last` if there are no more yet."""

    changes: list[ItemChange]
    position: str
    is_last: bool


class ItemJournal(Protocol):
    """The journal of item changes.

    Writes are atomic and durable when the method returns. `skus` must not contain duplicates. Every method
    raises Unavailable if the journal cannot be read or written, and DeadlineExceeded if that takes longer
    than `timeout_s`; a write may then have been made or not.
    """

    async def put(self, items: Sequence[Item], timeout_s: float) -> None:
        """Record that items were added or replaced, with their stock."""
        await self.write([ItemChange.put(item) for item in items], timeout_s)

    async def remove(self, skus: Sequence[str], timeout_s: float) -> None:
        """Record that items were removed; they are no longer marked as out of stock."""
        await self.write([ItemChange(sku, ChangeKind.REMOVED) for sku in skus], timeout_s)

    async def set_stock(self, skus: Sequence[str], *, in_stock: bool, timeout_s: float) -> None:
        """Record that items were marked as in stock or out of stock."""
        await self.write([ItemChange(sku, ChangeKind.STOCK, not in_stock) for sku in skus], timeout_s)

    async def write(self, changes: Sequence[ItemChange], timeout_s: float) -> None:
        """Record changes, each in place of the item's former one. One of stock keeps the former record."""

    async def read(self, after: str, limit: int, timeout_s: float) -> Page:
        """Return the items whose latest change is after the position `after`, at most `limit` of them.

        A position that is not of this journal is taken as START. Malformed entries are left out, logged and
        counted.
        """

    async def changes_of(self, skus: Sequence[str], timeout_s: float) -> dict[str, ItemChange]:
        """Return the latest changes of those of `skus` that were changed."""


async def pages(journal: ItemJournal, after: str, timeout_s: float) -> AsyncIterator[Page]:
    """Yield the changes after a position, page by page, each read within `timeout_s`; no empty pages.

    A page is read when the one before has been processed.
    """
    while True:
        page = await journal.read(after, PAGE_LIMIT, timeout_s)
        if page.position != after:
            yield page
        if page.is_last:
            return
        after = page.position


def position(journal_id: str, sequence: int) -> str:
    """Return the position after the change number `sequence`, from 1, of a journal."""
    return f"{journal_id}:{sequence}" if sequence else START


def sequence_of(position: str, journal_id: str, last: int) -> int:
    """Return the number of the change that a position follows, in the journal whose last change is `last`.

    Returns 0 for a position of another journal, and for one after `last`: the journal was replaced by an
    older copy of itself.
    """
    of_journal, _, text = position.rpartition(":")
    if of_journal != journal_id or not text.isdecimal() or len(text) > MAX_DIGITS:
        return 0
    return sequence if (sequence := int(text)) <= last else 0


_KINDS = {kind.value: kind for kind in ChangeKind}


def parse_changes(entries: Sequence[Sequence[Any]]) -> list[ItemChange]:
    """Return the valid changes of stored entries: the fields of an ItemChange, stock as 0 or 1.

    Logs and counts the others.
    """
    changes = []
    for entry in entries:
        if fault := _fault(entry):
            JOURNAL_ENTRIES_SKIPPED.inc()
            log.warning("skipped an entry of the item journal", reason=fault, entry=repr(entry)[:200])
        else:
            sku, kind, out_of_stock, *values = entry
            changes.append(ItemChange(sku, _KINDS[kind], out_of_stock == 1, *values))
    return changes


def _fault(entry: Sequence[Any]) -> str | None:
    """Return why an entry is no change; None if it is one."""
    if len(entry) != len(ItemChange._fields):
        return f"{len(entry)} fields, expected {len(ItemChange._fields)}"
    sku, kind, out_of_stock, *values = entry
    if not isinstance(sku, str):
        return "the sku is no text"
    if fault := sku_fault(sku):
        return f"the sku: {fault}"
    if kind not in _KINDS:
        return "the kind of the change is unknown"
    if out_of_stock not in (0, 1):
        return "the stock is neither 0 nor 1"
    if not all(isinstance(value, str) and not is_long(value) for value in values):
        return "brand, shop or category is no text, or too long"
    return None

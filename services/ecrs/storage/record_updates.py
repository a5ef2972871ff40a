"""Applies the journal of item changes to the item records in the profile store, for cm and for a seed."""

from collections.abc import Callable, Sequence

from ecrs.rpc.deadlines import Deadline
from ecrs.storage.item_journal import PAGE_LIMIT, ItemJournal
from ecrs.storage.item_writes import RECORDS
from ecrs.storage.profiles import ItemStore

STEP_LIMIT_S = 5.0
"""Longest time for one step: a read of the journal, or a write to the store."""


async def apply_page(
    journal: ItemJournal,
    store: ItemStore,
    deadline: Deadline,
    before_write: Callable[[Sequence[str]], None] = lambda skus: None,
) -> str | None:
    """Apply the next changes that the records lack, PAGE_LIMIT at most.

    Returns the store's new position if it has all changes of the journal, None if there may be more. Calls
    `before_write` with the skus of the changes. Raises Unavailable or DeadlineExceeded.
    """
    after = await store.position(RECORDS, deadline.share("redis", STEP_LIMIT_S))
    page = await journal.read(after, PAGE_LIMIT, deadline.share("item_journal", STEP_LIMIT_S))
    if page.position == after:
        return after
    before_write([change.sku for change in page.changes])
    applied = await store.apply(
        RECORDS, after, page.position, page.changes, deadline.share("redis", STEP_LIMIT_S)
    )
    # If not applied, another process has applied changes meanwhile, so look again.
    return page.position if applied and page.is_last else None


async def apply_all(journal: ItemJournal, store: ItemStore) -> str:
    """Apply all changes that the records lack, without a limit in time, and return the store's position."""
    while True:
        deadline = Deadline.after(None, default_s=3 * STEP_LIMIT_S)
        if (position := await apply_page(journal, store, deadline)) is not None:
            return position

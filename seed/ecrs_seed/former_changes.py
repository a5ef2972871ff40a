"""Brings item changes of a platform that had no journal yet into the journal.

Such a platform kept a hash of the changed skus, `ecrs##item_changes`, beside the records and the set of items
out of stock.
"""

from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis

from ecrs.domain.entities import sku_fault
from ecrs.storage.item_journal import PAGE_LIMIT, START, ItemJournal
from ecrs.storage.item_writes import RECORDS
from ecrs.storage.record_updates import STEP_LIMIT_S
from ecrs.storage.records import OUT_OF_STOCK_KEY
from ecrs.storage.redis_profiles import RedisProfileStore

FORMER_KEY = "ecrs##item_changes"


async def import_former_changes(redis: Redis, journal: ItemJournal) -> None:
    """Write the changes into the journal, once: when the records have not followed a journal yet.

    Changes that the journal has already are newer and stay. Safe to repeat after an interruption.
    """
    store = RedisProfileStore(redis)
    if await store.position(RECORDS, STEP_LIMIT_S) != START:
        return
    async for skus in _new_skus(redis.hscan, FORMER_KEY, journal):
        items = await store.items(skus, STEP_LIMIT_S)
        if put := [item for item in items if item is not None]:
            await journal.put(put, STEP_LIMIT_S)
        if removed := [sku for sku, item in zip(skus, items, strict=True) if item is None]:
            await journal.remove(removed, STEP_LIMIT_S)
    async for skus in _new_skus(redis.sscan, OUT_OF_STOCK_KEY, journal):
        await journal.set_stock(skus, in_stock=False, timeout_s=STEP_LIMIT_S)
    await redis.delete(FORMER_KEY)


async def _new_skus(scan: Any, key: str, journal: ItemJournal) -> AsyncIterator[list[str]]:
    """Yield the skus in a hash or a set that are valid and not in the journal, in batches."""
    cursor = 0
    while True:
        cursor, found = await scan(key, cursor, count=PAGE_LIMIT)
        texts = [sku.decode(errors="replace") for sku in found]
        known = await journal.changes_of(texts, STEP_LIMIT_S)
        if skus := list({sku: None for sku in texts if sku not in known and not sku_fault(sku)}):
            yield skus
        if not cursor:
            return

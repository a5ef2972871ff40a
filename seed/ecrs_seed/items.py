"""Writes and removes the records of a bundle's items, except those that people changed."""

from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

from ecrs.domain.entities import Item
from ecrs.storage.item_journal import START, ItemJournal
from ecrs.storage.item_writes import RECORDS, REMOVE, ItemWrite, write_items
from ecrs.storage.record_updates import STEP_LIMIT_S, apply_all
from ecrs.storage.records import dump_item
from ecrs.storage.redis_profiles import RedisProfileStore


class ItemRecords:
    """The item records in the profile store, which follow the journal of item changes during a seed, too.

    Methods raise Unavailable if the journal or the store fails.
    """

    def __init__(self, redis: Redis, journal: ItemJournal) -> None:
        self.journal = journal
        self._redis = redis
        self._position = START

    async def follow_journal(self) -> None:
        """Apply the changes that the records lack."""
        self._position = await apply_all(self.journal, RedisProfileStore(self._redis))

    async def write(self, items: Sequence[Item]) -> None:
        """Write the records of items, except those that people replaced or removed."""
        await self._write({item.sku.encode(): dump_item(item) for item in items})

    async def remove(self, skus: Sequence[bytes]) -> int:
        """Remove items, except those that people added or replaced, and return how many were removed."""
        return await self._write(dict.fromkeys(skus, REMOVE))

    async def are_replaced(self, skus: Sequence[bytes]) -> bool:
        """Return True if people replaced or removed all of these items."""
        return set(skus) == await self._replaced(skus)

    async def _write(self, records: Mapping[bytes, bytes]) -> int:
        while True:
            replaced = await self._replaced(list(records))
            writes = [ItemWrite(sku, record) for sku, record in records.items() if sku not in replaced]
            if not writes:
                return 0
            command = write_items(RECORDS, self._position, self._position, writes)
            if (removed := await self._redis.execute_command(*command)) is not None:
                return removed
            await self.follow_journal()  # cm has applied a change since the journal was read

    async def _replaced(self, skus: Sequence[bytes]) -> set[bytes]:
        texts = [sku.decode(errors="replace") for sku in skus]  # a key may be of any bytes
        changes = await self.journal.changes_of(texts, STEP_LIMIT_S)
        return {sku.encode() for sku, change in changes.items() if change.replaces_record}

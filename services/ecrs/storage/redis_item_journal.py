"""The journal of item changes in Redis, for the compose profile.

ecrs##item_journal          stream: the latest change of each item, with the fields of ItemChange and the time
ecrs##item_journal##entry   hash, sku to the id of its entry in the stream
ecrs##item_journal##id      the journal's id

A change deletes the entry of the item's former change in the same step, so the stream grows with the number
of items and not with the number of changes. The ids of the entries are 0-1, 0-2, and so on.
"""

import time
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ecrs.rpc.deadlines import bounded
from ecrs.storage.item_journal import (
    START,
    ItemChange,
    ItemJournal,
    Page,
    parse_changes,
    position,
    sequence_of,
)

STREAM_KEY = "ecrs##item_journal"
ENTRY_KEY = "ecrs##item_journal##entry"
ID_KEY = "ecrs##item_journal##id"

_WRITE = """
local stream, entry, id = KEYS[1], KEYS[2], KEYS[3]
redis.call('SET', id, ARGV[1], 'NX')
for n = 3, #ARGV, 6 do
  local sku, kind, out_of_stock, brand, shop, category = unpack(ARGV, n, n + 5)
  local former = redis.call('HGET', entry, sku)
  if former then
    local fields = (redis.call('XRANGE', stream, former, former)[1] or {})[2]
    if kind == 'stock' and fields and #fields == 14 then
      kind, brand, shop, category = fields[4], fields[8], fields[10], fields[12]
    end
    redis.call('XDEL', stream, former)
  end
  local added = redis.call('XADD', stream, '0-*', 'sku', sku, 'kind', kind, 'out_of_stock', out_of_stock,
    'brand', brand, 'shop', shop, 'category', category, 'changed_at', ARGV[2])
  redis.call('HSET', entry, sku, added)
end
"""
"""Appends changes, each in place of the item's former one. A change of stock keeps the former record."""

Entry = tuple[bytes, dict[bytes, bytes] | None]


class RedisItemJournal(ItemJournal):
    """An `ItemJournal` in a stream of Redis, which must write an append-only file to make it durable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, after: str, limit: int, timeout_s: float) -> Page:
        """Read a page by the ids of its entries."""
        pipeline = self._redis.pipeline()
        pipeline.get(ID_KEY)
        pipeline.xrevrange(STREAM_KEY, count=1)
        stored_id, newest = await _reply(pipeline.execute(), timeout_s)
        if not newest:
            return Page([], START, is_last=True)
        journal_id = (stored_id or b"").decode(errors="replace")
        sequence = sequence_of(after, journal_id, _sequence(newest[0]))
        entries = await _reply(self._redis.xrange(STREAM_KEY, f"(0-{sequence}", "+", limit), timeout_s)
        end = _sequence(entries[-1]) if entries else sequence
        return Page(_changes(entries), position(journal_id, end), is_last=len(entries) < limit)

    async def changes_of(self, skus: Sequence[str], timeout_s: float) -> dict[str, ItemChange]:
        """Look up the ids of the items' entries, then the entries."""
        if not skus:
            return {}
        ids = filter(None, await _reply(self._redis.hmget(ENTRY_KEY, list(skus)), timeout_s))
        pipeline = self._redis.pipeline(transaction=False)
        for entry_id in ids:
            pipeline.xrange(STREAM_KEY, entry_id, entry_id)
        entries = [entry for found in await _reply(pipeline.execute(), timeout_s) for entry in found]
        return {change.sku: change for change in _changes(entries)}

    async def write(self, changes: Sequence[ItemChange], timeout_s: float) -> None:
        """Append changes in one script."""
        arguments: list[Any] = [uuid.uuid4().hex, int(time.time())]
        for change in changes:
            arguments += (int(value) if isinstance(value, bool) else value for value in change)
        script = self._redis.eval(_WRITE, 3, STREAM_KEY, ENTRY_KEY, ID_KEY, *arguments)
        await _reply(script, timeout_s)


def _sequence(entry: Entry) -> int:
    """Return the number of an entry of the stream, 5 for 0-5."""
    return int(entry[0].partition(b"-")[2])


def _changes(entries: Sequence[Entry]) -> list[ItemChange]:
    """Return the changes in entries of the stream."""
    return parse_changes([_values(fields or {}) for _, fields in entries])


def _values(fields: dict[bytes, bytes]) -> list[object]:
    """Return the values of an entry in the order of ItemChange; None for a missing one or for no UTF-8."""
    values: list[object] = []
    for name in ItemChange._fields:
        try:
            values.append(fields[name.encode()].decode())
        except (KeyError, UnicodeDecodeError):
            values.append(None)
    out_of_stock = ItemChange._fields.index("out_of_stock")
    values[out_of_stock] = {"0": 0, "1": 1}.get(str(values[out_of_stock]))
    return values


async def _reply(command: Awaitable[Any], timeout_s: float) -> Any:
    return await bounded(
        timeout_s,
        "the item journal",
        command,
        dependency="item_journal",
        unavailable_on=(RedisError, OSError),
    )

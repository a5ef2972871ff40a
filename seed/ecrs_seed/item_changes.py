"""Writes and removes items, except those that the shop changed through cm since the bundle's `as_of`."""

from collections.abc import Sequence
from typing import Any

from ecrs.domain.entities import Item
from ecrs.storage.records import ITEM_CHANGES_KEY, StoredKey, dump_item, item_key

_SCRIPT = """
local items, as_of = #KEYS - 1, tonumber(ARGV[1])
local changed_at = redis.call('HMGET', KEYS[1], unpack(ARGV, 2, items + 1))
local written, removed, outdated = {}, {}, {}
for n = 1, items do
  if not changed_at[n] or tonumber(changed_at[n]) < as_of then
    local key, sku, record = KEYS[n + 1], ARGV[n + 1], ARGV[items + n + 1]
    if record == '' then
      table.insert(removed, key)
    else
      table.insert(written, key)
      table.insert(written, record)
    end
    if changed_at[n] then
      table.insert(outdated, sku)
    end
  end
end
if #written > 0 then
  redis.call('MSET', unpack(written))
end
if #outdated > 0 then
  redis.call('HDEL', KEYS[1], unpack(outdated))
end
return #removed > 0 and redis.call('UNLINK', unpack(removed)) or 0
"""
"""Writes or removes items, and deletes the recorded times of their older changes.

It is a script, and so atomic, because cm could otherwise change an item between the check and the write.
"""

Command = tuple[Any, ...]
"""The name and arguments of a Redis command."""


def write_items(as_of: int, items: Sequence[Item]) -> Command:
    """Return the command that writes the records of `items`, except those changed since `as_of`."""
    keys, skus = [item_key(item.sku) for item in items], [item.sku for item in items]
    return _command(as_of, keys, skus, [dump_item(item) for item in items])


def remove_items(as_of: int, items: Sequence[StoredKey]) -> Command:
    """Return the command that removes items, except those changed since `as_of`.

    Its reply is the number of items removed.
    """
    return _command(as_of, [key.name for key in items], [key.id for key in items], [b""] * len(items))


def _command(as_of: int, keys: Sequence[Any], skus: Sequence[Any], records: Sequence[bytes]) -> Command:
    """Return the call of the script. `records`: the new record of each item, empty to remove the item."""
    return ("EVAL", _SCRIPT, 1 + len(keys), ITEM_CHANGES_KEY, *keys, as_of, *skus, *records)

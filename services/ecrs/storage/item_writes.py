"""The script that writes item records, their stock and a follower's position in the journal in one step.

It does nothing if the position has moved meanwhile. So changes reach the records in the order of the journal,
whoever applies them, and a seed never writes a bundle's record over a newer change.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ecrs.storage.item_journal import ChangeKind, ItemChange
from ecrs.storage.records import OUT_OF_STOCK_KEY, dump_item, item_key

RECORDS, VECTORS = "records", "vectors"
"""Followers of the journal: the records in the profile store, and the vectors in recall."""

KEEP, REMOVE = b"", b"-"
"""In place of a record: leave the stored record as it is, or remove it."""

Command = tuple[Any, ...]
"""The name and arguments of a Redis command."""

_SCRIPT = """
local position, out_of_stock = KEYS[1], KEYS[2]
if (redis.call('GET', position) or '') ~= ARGV[1] then
  return nil
end
local removed = 0
for n = 3, #KEYS do
  local sku, record, mark = unpack(ARGV, 3 * n - 6, 3 * n - 4)
  if record == '-' then
    removed = removed + redis.call('UNLINK', KEYS[n])
  elseif record ~= '' then
    redis.call('SET', KEYS[n], record)
  end
  if mark == '1' then
    redis.call('SADD', out_of_stock, sku)
  elseif mark == '0' then
    redis.call('SREM', out_of_stock, sku)
  end
end
if ARGV[2] ~= ARGV[1] then
  redis.call('SET', position, ARGV[2])
end
return removed
"""


class ItemWrite(NamedTuple):
    """What to write of an item: its record, KEEP or REMOVE; `out_of_stock` is None to leave the mark."""

    sku: bytes
    record: bytes
    out_of_stock: bool | None = None

    @property
    def key(self) -> bytes:
        """The key of the item's record."""
        return self.sku + item_key("").encode()

    @classmethod
    def of(cls, change: ItemChange) -> "ItemWrite":
        """Return the write that applies a change."""
        records = {ChangeKind.PUT: dump_item(change.item), ChangeKind.REMOVED: REMOVE}
        return cls(change.sku.encode(), records.get(change.kind, KEEP), change.out_of_stock)


def position_key(follower: str) -> str:
    """Return the key of the position up to which a follower has applied the journal."""
    return f"ecrs##item_journal_applied##{follower}"


def write_items(follower: str, after: str, upto: str, writes: Sequence[ItemWrite]) -> Command:
    """Return the command that writes items and moves a follower from position `after` to `upto`.

    Its reply is the number of removed records, or nil if the follower was not at `after`.
    """
    keys = [position_key(follower), OUT_OF_STOCK_KEY, *(write.key for write in writes)]
    arguments: list[Any] = [after, upto]
    for sku, record, out_of_stock in writes:
        arguments += (sku, record, b"" if out_of_stock is None else b"01"[out_of_stock : out_of_stock + 1])
    return ("EVAL", _SCRIPT, len(keys), *keys, *arguments)

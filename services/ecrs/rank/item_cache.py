"""Cache of the encoded item records."""

from array import array
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.features.catalogue import NO_ID
from ecrs.features.ranker_input import EncodedItems, RankerInputBuilder
from ecrs.wire.messages import to_item

MAX_ITEMS_CACHED = 100_000
"""Largest number of cached records, which take 280 bytes each."""
MAX_RECORD_BYTES = 1024
"""Longest record that is encoded. Records of items that cm serves are shorter."""


class EncodedItemCache:
    """Encodes item records, each distinct one only once while it is cached.

    Caches by the serialized bytes of a record, so a changed record misses the cache. A record longer than
    MAX_RECORD_BYTES is encoded as an item that nothing is known about, so that it costs no other item its
    score.
    """

    def __init__(self, inputs: RankerInputBuilder) -> None:
        self._inputs = inputs
        self._encode = lru_cache(MAX_ITEMS_CACHED)(self._encode_record)
        self._unknown = self._encode_record(b"")

    def items(self, infos: Sequence[ItemInfo]) -> EncodedItems:
        """Return the encoded items in the order of `infos`, which must not be empty."""
        records = [info.SerializeToString() for info in infos]
        encoded = [
            self._encode(record) if len(record) <= MAX_RECORD_BYTES else self._unknown for record in records
        ]
        rows = np.frombuffer(b"".join(encoded), dtype=np.int64).reshape(len(records), -1)
        return EncodedItems(rows[:, 0], rows[:, 1:])

    def _encode_record(self, record: bytes) -> bytes:
        """Return an item's catalogue row and vocabulary ids, as the bytes of int64 values.

        As bytes, because joining them is the fastest way to build the array of a request.
        """
        item = to_item(ItemInfo.FromString(record))
        row = self._inputs.catalogue.row.get(item.sku, NO_ID)
        return array("q", [row, *self._inputs.encoder.item_row(item)]).tobytes()

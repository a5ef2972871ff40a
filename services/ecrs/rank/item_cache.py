"""Item records that rank has encoded before."""

from array import array
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.features.catalogue import NO_ID
from ecrs.features.ranker_input import EncodedItems, RankerInputBuilder
from ecrs.rpc.errors import BadRequest
from ecrs.wire.messages import to_item

MAX_ITEMS_CACHED = 100_000
"""Records kept, 280 bytes each."""
MAX_RECORD_BYTES = 1024
"""Longest valid record: the names and values that cm takes are shorter."""


class EncodedItemCache:
    """Encodes item records, and each distinct one only once while it is kept.

    Records are told apart by their serialized bytes, so a changed record is encoded anew.
    """

    def __init__(self, inputs: RankerInputBuilder) -> None:
        self._inputs = inputs
        self._encode = lru_cache(MAX_ITEMS_CACHED)(self._encode_record)

    def items(self, infos: Sequence[ItemInfo]) -> EncodedItems:
        """The items in the order of `infos`, of which there must be one. Raises BadRequest for a record that
        is too long."""
        records = [info.SerializeToString() for info in infos]
        if max(map(len, records)) > MAX_RECORD_BYTES:
            place = next(place for place, record in enumerate(records) if len(record) > MAX_RECORD_BYTES)
            length = len(records[place])
            raise BadRequest(f"item_infos[{place}]: at most {MAX_RECORD_BYTES} bytes, got {length}")
        rows = np.frombuffer(b"".join(map(self._encode, records)), dtype=np.int64).reshape(len(records), -1)
        return EncodedItems(rows[:, 0], rows[:, 1:])

    def _encode_record(self, record: bytes) -> bytes:
        """The item's row in the catalogue and its ids, int64: as bytes, which joined are an array at once."""
        item = to_item(ItemInfo.FromString(record))
        row = self._inputs.catalogue.row.get(item.sku, NO_ID)
        return array("q", [row, *self._inputs.encoder.item_row(item)]).tobytes()

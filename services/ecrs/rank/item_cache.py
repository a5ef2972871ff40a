"""Records of products that rank has read before."""

from collections.abc import Sequence

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.features.ranker_input import EncodedItems, RankerInputBuilder
from ecrs.rpc.errors import BadRequest
from ecrs.wire.messages import to_item

MAX_ITEMS_CACHED = 50_000
"""Records kept: 12 MB were seen of them."""
MAX_RECORD_BYTES = 1024
"""More than any record that cm has taken."""


class EncodedItemCache:
    """Reads a record once: the next time it is known by its bytes, and one that changed is another."""

    def __init__(self, inputs: RankerInputBuilder) -> None:
        self._inputs = inputs
        self._place: dict[bytes, int] = {}
        self._records = EncodedItems.empty(MAX_ITEMS_CACHED)

    def of(self, infos: Sequence[ItemInfo]) -> EncodedItems:
        """Encode the records. Raises BadRequest for one that is too long."""
        keys = [info.SerializeToString() for info in infos]
        if max(map(len, keys)) > MAX_RECORD_BYTES:
            place = next(place for place, key in enumerate(keys) if len(key) > MAX_RECORD_BYTES)
            raise BadRequest(f"item_infos[{place}]: at most {MAX_RECORD_BYTES} bytes, got {len(keys[place])}")
        places = list(map(self._place.get, keys))
        if None in places:
            self._read(keys, infos)
            places = list(map(self._place.get, keys))
        return self._records.at(places)  # type: ignore[arg-type]

    def _read(self, keys: list[bytes], infos: Sequence[ItemInfo]) -> None:
        new = {key: info for key, info in zip(keys, infos, strict=True) if key not in self._place}
        if len(self._place) + len(new) > MAX_ITEMS_CACHED:
            self._place.clear()
            new = dict(zip(keys, infos, strict=True))
        records = self._inputs.items([to_item(info) for info in new.values()])
        places = range(len(self._place), len(self._place) + len(new))
        self._records.write(places, records)
        self._place.update(zip(new, places, strict=True))

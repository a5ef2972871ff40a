"""The cache of encoded item records in rank."""

from collections.abc import Sequence

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.domain.files import parse_item
from ecrs.features.ranker_input import RankerInputBuilder
from ecrs.rank.item_cache import EncodedItemCache
from ecrs.rank.tables import load_ranker_inputs
from ecrs.rpc.errors import BadRequest
from ecrs.wire.messages import from_item, to_item


class RecordingCache:
    """A cache of at most three records that lists in `skus` every record it encodes."""

    def __init__(self, inputs: RankerInputBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.skus: list[str] = []
        self._inputs = inputs
        monkeypatch.setattr("ecrs.rank.item_cache.MAX_ITEMS_CACHED", 3)
        monkeypatch.setattr("ecrs.rank.item_cache.to_item", self._to_item)
        self.cache = EncodedItemCache(inputs)

    def _to_item(self, info: ItemInfo) -> object:
        self.skus.append(info.sku_id)
        return to_item(info)

    def check(self, infos: Sequence[ItemInfo]) -> None:
        """Assert that the cache returns the encoding of these records."""
        cached, expected = self.cache.items(infos), self._inputs.items([to_item(info) for info in infos])
        np.testing.assert_array_equal(cached.row, expected.row)
        np.testing.assert_array_equal(cached.ids, expected.ids)


@pytest.fixture
def recorder(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> RecordingCache:
    return RecordingCache(load_ranker_inputs(tiny), monkeypatch)


@pytest.fixture
def infos(tiny: Bundle) -> list[ItemInfo]:
    known = [from_item(parse_item(line)) for line in list(tiny.lines("products.dat"))[:4]]
    return [*known, ItemInfo(sku_id="never seen", brand=known[0].brand)]


def test_items_keep_request_order(recorder: RecordingCache, infos: list[ItemInfo]) -> None:
    for requested in (infos[:2], infos[::-1], [infos[1], infos[1], infos[4]]):
        recorder.check(requested)


def test_record_is_encoded_once_until_it_changes(recorder: RecordingCache, infos: list[ItemInfo]) -> None:
    first, second = infos[:2]
    recorder.check([first, second])
    recorder.check([second, first])
    changed = ItemInfo(sku_id=first.sku_id, brand="another brand")
    recorder.check([changed, second])
    assert recorder.skus == [first.sku_id, second.sku_id, first.sku_id]


def test_full_cache_evicts_least_recently_used_record(
    recorder: RecordingCache, infos: list[ItemInfo]
) -> None:
    recorder.check(infos[:3])
    recorder.check(infos[:1])
    recorder.check(infos[3:4])
    assert recorder.skus == [info.sku_id for info in infos[:4]]
    recorder.check([infos[3], infos[0], infos[1]])
    assert recorder.skus[4:] == [infos[1].sku_id]


def test_oversized_record_is_refused_without_affecting_next_request(
    recorder: RecordingCache, infos: list[ItemInfo]
) -> None:
    with pytest.raises(BadRequest, match=r"item_infos\[1\]: at most 1024 bytes, got 2003"):
        recorder.cache.items([infos[0], ItemInfo(sku_id="x" * 2000)])
    recorder.check(infos)

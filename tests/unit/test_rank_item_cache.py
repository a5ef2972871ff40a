"""The cache of encoded item records in rank."""

from collections.abc import Sequence

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.domain.entities import MAX_ITEM_BYTES
from ecrs.domain.files import parse_item
from ecrs.features.catalogue import NO_ID
from ecrs.features.ranker_input import RankerInputBuilder
from ecrs.rank.item_cache import MAX_RECORD_BYTES, EncodedItemCache
from ecrs.rank.tables import load_ranker_inputs
from ecrs.wire.messages import from_item, to_item


class RecordingCache:
    """A cache of at most three records that lists in `skus` every record it encodes."""

    def __init__(self, inputs: RankerInputBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.skus: list[str] = []
        self.inputs = inputs
        monkeypatch.setattr("ecrs.rank.item_cache.MAX_ITEMS_CACHED", 3)
        monkeypatch.setattr("ecrs.rank.item_cache.to_item", self._to_item)
        self.cache = EncodedItemCache(inputs)
        self.skus.clear()  # the cache encodes the unknown item when it is made

    def _to_item(self, info: ItemInfo) -> object:
        self.skus.append(info.sku_id)
        return to_item(info)

    def check(self, infos: Sequence[ItemInfo]) -> None:
        """Assert that the cache returns the encoding of these records."""
        cached, expected = self.cache.items(infos), self.inputs.items([to_item(info) for info in infos])
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


def test_oversized_record_is_encoded_as_an_unknown_item_and_not_cached(
    recorder: RecordingCache, infos: list[ItemInfo]
) -> None:
    oversized = ItemInfo(sku_id=infos[0].sku_id, brand="x" * 2000)
    encoded = recorder.cache.items([infos[0], oversized, infos[1]])
    expected = recorder.inputs.items([to_item(info) for info in (infos[0], ItemInfo(), infos[1])])
    np.testing.assert_array_equal(encoded.row, expected.row)
    np.testing.assert_array_equal(encoded.ids, expected.ids)
    assert encoded.row[1] == NO_ID
    assert recorder.skus == [infos[0].sku_id, infos[1].sku_id]


def test_longest_item_that_cm_serves_is_not_oversized() -> None:
    quarter = "x" * (MAX_ITEM_BYTES // 4)
    info = ItemInfo(sku_id=quarter, brand=quarter, shopid=quarter, cate=quarter, out_of_stock=True)
    assert info.ByteSize() <= MAX_RECORD_BYTES

"""The item records that rank keeps encoded."""

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


class Encoded:
    """A cache that holds at most three records, and the skus of those that it has encoded."""

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
        """The cache's answer is the encoding of these records."""
        found, expected = self.cache.items(infos), self._inputs.items([to_item(info) for info in infos])
        np.testing.assert_array_equal(found.row, expected.row)
        np.testing.assert_array_equal(found.ids, expected.ids)


@pytest.fixture
def encoded(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> Encoded:
    return Encoded(load_ranker_inputs(tiny), monkeypatch)


@pytest.fixture
def infos(tiny: Bundle) -> list[ItemInfo]:
    known = [from_item(parse_item(line)) for line in list(tiny.lines("products.dat"))[:4]]
    return [*known, ItemInfo(sku_id="never seen", brand=known[0].brand)]


def test_items_come_in_the_requests_order(encoded: Encoded, infos: list[ItemInfo]) -> None:
    for wanted in (infos[:2], infos[::-1], [infos[1], infos[1], infos[4]]):
        encoded.check(wanted)


def test_a_record_is_encoded_once_until_it_changes(encoded: Encoded, infos: list[ItemInfo]) -> None:
    first, second = infos[:2]
    encoded.check([first, second])
    encoded.check([second, first])
    changed = ItemInfo(sku_id=first.sku_id, brand="another brand")
    encoded.check([changed, second])
    assert encoded.skus == [first.sku_id, second.sku_id, first.sku_id]


def test_a_full_cache_forgets_the_record_used_longest_ago(encoded: Encoded, infos: list[ItemInfo]) -> None:
    encoded.check(infos[:3])
    encoded.check(infos[:1])
    encoded.check(infos[3:4])
    assert encoded.skus == [info.sku_id for info in infos[:4]]
    encoded.check([infos[3], infos[0], infos[1]])
    assert encoded.skus[4:] == [infos[1].sku_id]


def test_a_record_that_is_too_long_is_refused_and_the_next_request_answered(
    encoded: Encoded, infos: list[ItemInfo]
) -> None:
    with pytest.raises(BadRequest, match=r"item_infos\[1\]: at most 1024 bytes, got 2003"):
        encoded.cache.items([infos[0], ItemInfo(sku_id="x" * 2000)])
    encoded.check(infos)

"""The item records that rank keeps encoded."""

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.domain.files import parse_item
from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.ranker_input import EncodedItems, RankerInputBuilder
from ecrs.rank.item_cache import EncodedItemCache
from ecrs.rank.tables import load_ranker_inputs
from ecrs.rpc.errors import BadRequest
from ecrs.wire.messages import from_item, to_item


@pytest.fixture
def inputs(tiny: Bundle) -> RankerInputBuilder:
    return load_ranker_inputs(tiny)


@pytest.fixture
def infos(tiny: Bundle) -> list[ItemInfo]:
    return [from_item(parse_item(line)) for line in list(tiny.lines("products.dat"))[:5]]


def assert_same(found: EncodedItems, inputs: RankerInputBuilder, infos: list[ItemInfo]) -> None:
    read = inputs.items([to_item(info) for info in infos])
    for name in ("row", "ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(read, name))


def test_records_come_in_the_order_asked_known_or_not(
    inputs: RankerInputBuilder, infos: list[ItemInfo]
) -> None:
    known = EncodedItemCache(inputs)
    for asked in (infos[:2], infos[::-1], [infos[1], infos[1], infos[4]]):
        assert_same(known.of(asked), inputs, asked)


def test_a_record_is_read_once_until_it_changes(
    inputs: RankerInputBuilder, infos: list[ItemInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        "ecrs.rank.item_cache.to_item", lambda info: read.append(info.sku_id) or to_item(info)
    )
    known = EncodedItemCache(inputs)
    for _ in range(2):
        known.of(infos[:2])
    changed = ItemInfo.FromString(infos[0].SerializeToString())
    changed.brand = "another brand"
    assert_same(known.of([changed, infos[1]]), inputs, [changed, infos[1]])
    assert read == [infos[0].sku_id, infos[1].sku_id, infos[0].sku_id]


def test_a_full_memory_begins_anew(
    inputs: RankerInputBuilder, infos: list[ItemInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.rank.item_cache.MAX_ITEMS_CACHED", 3)
    known = EncodedItemCache(inputs)
    for asked in (infos[:2], infos[1:4], infos[:1], infos[3:5]):
        assert_same(known.of(asked), inputs, asked)


def test_what_is_wrong_with_a_record_leaves_the_others_known(
    inputs: RankerInputBuilder, infos: list[ItemInfo]
) -> None:
    known = EncodedItemCache(inputs)
    with pytest.raises(BadRequest, match="at most 1024 bytes, got 2003"):
        known.of([infos[0], ItemInfo(sku_id="x" * 2000)])
    assert_same(known.of(infos), inputs, infos)


def test_sources_are_read_by_name_whatever_their_order() -> None:
    said = ProvenanceTable.of(
        [[("vector", 2, 0.5), ("cold_start", 1, 0.1)], [("repurchase", 1, 3.0)]],
        ["vector", "cold_start", "repurchase"],
    )
    mine = said.select(["repurchase", "similar", "vector"])
    assert mine.positions.tolist() == [[0, 0, 2], [1, 0, 0]]
    np.testing.assert_array_equal(mine.scores, np.float32([[np.nan, np.nan, 0.5], [3.0, np.nan, np.nan]]))

"""cm adds, removes and marks items, over a fake store, the tiny bundle's item tower and recall's servicer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.cm.item_cache import ItemCache
from ecrs.cm.item_changes import ItemChanges
from ecrs.cm.recall_vectors import RecallVectorUpdates
from ecrs.cm.service import CMService
from ecrs.contract.cm_pb2 import (
    ChangeResponse,
    CMRequest,
    PutItemsRequest,
    RemoveItemsRequest,
    SetStockRequest,
)
from ecrs.contract.cm_pb2_grpc import CMServiceStub, add_CMServiceServicer_to_server
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.recall_pb2_grpc import add_RecallServiceServicer_to_server
from ecrs.domain.entities import Item
from ecrs.recall.service import RecallService
from ecrs.recall.vector_updates import VectorUpdater
from ecrs.rpc.client import open_channel
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.server import Service
from ecrs.serving.item_embedder import ItemEmbedder
from ecrs.serving.models import open_model
from ecrs.serving.served_model import ServedModel
from ecrs.serving.signature import ModelSignature
from ecrs.storage.item_journal import ChangeKind
from ecrs.storage.seeded_version import SeededVersion
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from ecrs.storage.vectors import read_vectors
from tests.fakes import FakeModel, FakeProfiles, FakeVectors
from tests.service.conftest import Start

KNOWN = Item("12048", "10", "500", "70")


@pytest.fixture
def store(tiny: Bundle) -> FakeProfiles:
    return FakeProfiles(products={"12048": KNOWN, "99654": Item("99654")}, seeded=tiny.version)


@pytest.fixture
def vectors(tiny: Bundle) -> FakeVectors:
    table = read_vectors(tiny.lines("product_vectors.txt"), tiny.count("product_vectors.txt"))
    return FakeVectors(*table, bundle_version=tiny.version)


@pytest.fixture
async def item_tower(tiny: Bundle) -> AsyncIterator[ServedModel]:
    async with open_model("inprocess", tiny, "item_tower") as model:
        yield model


@dataclass
class Platform:
    """cm and recall, each on its own port. Their dependencies may be replaced before `cm` is called."""

    start: Start
    bundle: Bundle
    store: FakeProfiles
    vectors: FakeVectors
    item_tower: ServedModel
    journal: SqliteItemJournal
    recall_target: str = ""
    open: list = field(default_factory=list)

    async def cm(self) -> CMServiceStub:
        if not self.recall_target:
            self.recall_target = await self._recall()
        seeded = SeededVersion("cm", self.store)
        recall = open_channel(self.recall_target)
        self.open.append(recall)
        tower = ItemEmbedder(self.bundle, self.item_tower)
        records = ItemCache(self.store, seeded, age_s=3600.0)  # long, so that only a change causes a new read
        self.changes = ItemChanges(
            self.journal, self.store, records, seeded, tower, RecallVectorUpdates(recall, None)
        )
        servicer = CMService(records, seeded, self.changes, call_timeout_s=5.0)
        channel, running = await self.start(
            Service(
                "cm", "cm.CMService", lambda s: add_CMServiceServicer_to_server(servicer, s), seeded.check
            )
        )
        await running.serving()
        return CMServiceStub(channel)

    async def _recall(self) -> str:
        async def fine() -> None: ...

        updates = VectorUpdater(self.bundle, self.item_tower.signature.width, self.vectors)
        servicer = RecallService(None, updates, call_timeout_s=5.0)
        _, running = await self.start(
            Service(
                "recall",
                "recall.RecallService",
                lambda s: add_RecallServiceServicer_to_server(servicer, s),
                fine,
            )
        )
        return f"127.0.0.1:{running.port}"


@pytest.fixture
async def platform(
    start: Start,
    tiny: Bundle,
    store: FakeProfiles,
    vectors: FakeVectors,
    item_tower: ServedModel,
    tmp_path: Path,
) -> AsyncIterator[Platform]:
    with SqliteItemJournal(tmp_path / "items.sqlite") as journal:
        platform = Platform(start, tiny, store, vectors, item_tower, journal)
        yield platform
    for channel in platform.open:
        await channel.close()


def put(*skus: str, **fields: str) -> PutItemsRequest:
    return PutItemsRequest(item_infos=[ItemInfo(sku_id=sku, **fields) for sku in skus])


async def test_a_new_item_gets_a_record_and_the_towers_vector(
    platform: Platform, item_tower: ServedModel
) -> None:
    stub = await platform.cm()
    reply = await stub.put_items(put("new", brand="3456", shopid="6980", cate="70"))
    assert (reply.error.code, reply.done, list(reply.missing_ids)) == (200, 1, [])
    assert reply.bundle_version == platform.bundle.version
    (info,) = (await stub.cm_call(CMRequest(item_ids=["new"]))).item_infos
    assert info == ItemInfo(sku_id="new", brand="3456", shopid="6980", cate="70")
    ids = platform.bundle.encoder.items([Item("new", "3456", "6980", "70")])
    (expected,) = await item_tower.infer(ids, 5.0)
    assert platform.vectors.skus[-1] == "new"
    np.testing.assert_allclose(platform.vectors.vectors[-1], expected, atol=1e-6)
    category = platform.bundle.encoder.vocabularies["category"].encode("70")
    assert platform.vectors.cold_start_category == {"new": category}


async def test_items_of_unknown_brand_shop_and_category_are_accepted(platform: Platform) -> None:
    stub = await platform.cm()
    reply = await stub.put_items(put("a", "b", brand="?", shopid="never seen"))
    assert (reply.error.code, reply.done) == (200, 2)
    stored = await platform.store.items(["b"], 1.0)
    assert stored == [Item("b", "?", "never seen", "-1")]


async def test_putting_a_known_item_replaces_its_record(platform: Platform) -> None:
    stub = await platform.cm()
    before = await platform.vectors.count(1.0)
    request = PutItemsRequest(item_infos=[ItemInfo(sku_id="12048", brand="new brand", out_of_stock=True)])
    assert (await stub.put_items(request)).error.code == 200
    assert platform.store.products["12048"] == Item("12048", "new brand", out_of_stock=True)
    assert await platform.vectors.count(1.0) == before
    assert platform.vectors.cold_start_category == {}


async def test_one_call_can_put_a_thousand_items(platform: Platform) -> None:
    stub = await platform.cm()
    reply = await stub.put_items(put(*(f"new-{n}" for n in range(1000)), cate="70"))
    assert (reply.error.code, reply.done) == (200, 1000)
    assert set(platform.vectors.skus) >= {"new-0", "new-999"}


BAD_SKUS = {
    "": "it is empty",
    "a,b": "it holds a control character or one of ',:;'",
    "a;b": "it holds a control character or one of ',:;'",
    "a:b": "it holds a control character or one of ',:;'",
    "a\nb": "it holds a control character or one of ',:;'",
    "a\x7fb": "it holds a control character or one of ',:;'",
    " a": "it begins or ends with a space",
    "ü" * 65: "it is longer than 128 bytes",
}


def change(stub: CMServiceStub, method: str, skus: list[str]):
    request = {
        "put_items": lambda: put(*skus),
        "remove_items": lambda: RemoveItemsRequest(item_ids=skus),
        "set_stock": lambda: SetStockRequest(item_ids=skus),
    }[method]()
    return getattr(stub, method)(request)


CHANGES = ("put_items", "remove_items", "set_stock")


@pytest.mark.parametrize("method", CHANGES)
async def test_an_invalid_sku_is_named_and_nothing_is_changed(platform: Platform, method: str) -> None:
    stub = await platform.cm()
    before = dict(platform.store.products)
    for sku, fault in BAD_SKUS.items():
        reply = await change(stub, method, ["99654", sku])
        assert reply.error.code == 400
        assert reply.error.text.endswith(f"[1]: sku {sku!r}: {fault}")
    twice = await change(stub, method, ["99654", "x", "x"])
    assert (twice.error.code, twice.error.text.endswith("[2]: sku 'x': twice in one call")) == (400, True)
    assert platform.store.products == before


@pytest.mark.parametrize("count", [0, 1001])
@pytest.mark.parametrize("method", CHANGES)
async def test_no_items_or_too_many_are_a_bad_request(platform: Platform, method: str, count: int) -> None:
    stub = await platform.cm()
    reply = await change(stub, method, [str(n) for n in range(count)])
    assert reply.error.code == 400
    assert f"expected 1 to 1000 products, got {count}" in reply.error.text


async def test_a_control_character_in_a_field_is_a_bad_request(platform: Platform) -> None:
    reply = await (await platform.cm()).put_items(put("new", brand="a\nb"))
    assert (reply.error.code, reply.error.text) == (
        400, "item_infos[0]: sku 'new': brand holds a control character",
    )  # fmt: skip


async def test_removed_items_are_unknown_and_have_no_vector(platform: Platform) -> None:
    stub = await platform.cm()
    assert "12048" in platform.vectors.skus
    reply = await stub.remove_items(RemoveItemsRequest(item_ids=["12048", "never there"]))
    assert (reply.error.code, reply.done, list(reply.missing_ids)) == (200, 1, ["never there"])
    assert "12048" not in platform.vectors.skus
    lookup = await stub.cm_call(CMRequest(item_ids=["12048", "99654"]))
    assert list(lookup.missing_ids) == ["12048"]


async def test_items_out_of_stock_are_flagged_until_they_are_back(platform: Platform) -> None:
    stub = await platform.cm()

    async def flags() -> list[bool]:
        reply = await stub.cm_call(CMRequest(item_ids=["12048", "99654"]))
        return [info.out_of_stock for info in reply.item_infos]

    reply = await stub.set_stock(SetStockRequest(item_ids=["12048", "never there"]))
    assert (reply.error.code, reply.done, list(reply.missing_ids)) == (200, 1, ["never there"])
    assert await flags() == [True, False]
    await stub.set_stock(SetStockRequest(item_ids=["12048"], in_stock=True))
    assert await flags() == [False, False]
    assert platform.store.products["12048"] == KNOWN


async def put_and_remove(stub: CMServiceStub) -> list[ChangeResponse]:
    return [await change(stub, method, ["12048"]) for method in ("put_items", "remove_items")]


async def assert_lookup_and_stock_work(platform: Platform, stub: CMServiceStub) -> None:
    (info,) = (await stub.cm_call(CMRequest(item_ids=["99654"]))).item_infos
    assert (info.sku_id, info.out_of_stock) == ("99654", False)
    assert (await stub.set_stock(SetStockRequest(item_ids=["99654"]))).error.code == 200
    (info,) = (await stub.cm_call(CMRequest(item_ids=["99654"]))).item_infos
    assert info.out_of_stock


async def assert_nothing_changed(platform: Platform) -> None:
    assert platform.store.products["12048"] == KNOWN
    assert "12048" in platform.vectors.skus
    assert (await platform.journal.read("", 9, 5.0)).changes == []


async def assert_changed_later(platform: Platform) -> None:
    """The last change of `put_and_remove`, a removal, has reached the records and reaches the vectors."""
    assert "12048" not in platform.store.products
    await platform.changes.catch_up()
    assert "12048" not in platform.vectors.skus


async def test_without_recall_changes_are_kept_for_it_and_the_rest_works(platform: Platform) -> None:
    platform.recall_target = "127.0.0.1:1"
    stub = await platform.cm()
    for reply in await put_and_remove(stub):
        assert (reply.error.code, reply.error.text) == (503, "recall is unavailable (UNAVAILABLE)")
    await assert_lookup_and_stock_work(platform, stub)
    await platform.changes.catch_up()
    await platform.changes.check()
    assert "12048" in platform.vectors.skus
    platform.recall_target = ""
    await platform.cm()  # another cm, which can reach recall
    await assert_changed_later(platform)


async def test_without_a_vector_store_changes_are_kept_for_it(platform: Platform) -> None:
    platform.vectors.trouble.fault = Unavailable("Milvus is unavailable")
    stub = await platform.cm()
    for reply in await put_and_remove(stub):
        assert (reply.error.code, reply.error.text) == (503, "Milvus is unavailable")
    await assert_lookup_and_stock_work(platform, stub)
    platform.vectors.trouble.fault = None
    await assert_changed_later(platform)


async def test_without_the_item_tower_items_cannot_be_put_but_the_rest_works(platform: Platform) -> None:
    signature = ModelSignature.load(platform.bundle.path / "item_tower")
    unavailable = FakeModel(signature, None)
    unavailable.trouble.fault = Unavailable("item_tower at serving:9998 is unavailable")
    platform.item_tower = unavailable
    stub = await platform.cm()
    reply = await stub.put_items(put("12048"))
    assert (reply.error.code, reply.error.text) == (503, "item_tower at serving:9998 is unavailable")
    await assert_nothing_changed(platform)
    await assert_lookup_and_stock_work(platform, stub)
    assert (await stub.remove_items(RemoveItemsRequest(item_ids=["12048"]))).error.code == 200


async def test_an_item_tower_that_does_not_reproduce_the_golden_rows_is_refused(platform: Platform) -> None:
    signature = ModelSignature.load(platform.bundle.path / "item_tower")
    platform.item_tower = FakeModel(signature, lambda ids: np.ones((len(ids), signature.width)))
    reply = await (await platform.cm()).put_items(put("new"))
    assert reply.error.code == 503
    assert "golden rows are off" in reply.error.text
    await assert_nothing_changed(platform)


async def test_no_items_change_while_the_store_holds_another_bundle(platform: Platform) -> None:
    platform.store.seeded = "20200101_000000_00000000"
    stub = await platform.cm()
    for reply in await put_and_remove(stub):
        assert reply.error.code == 503
        assert "the profile store holds 20200101_000000_00000000" in reply.error.text
    await assert_nothing_changed(platform)
    await assert_lookup_and_stock_work(platform, stub)


async def test_no_items_change_in_an_emptied_store(platform: Platform) -> None:
    stub = await platform.cm()
    skus = list(platform.vectors.skus)
    platform.store.products, platform.store.seeded = {}, None
    for reply in (*await put_and_remove(stub), await stub.set_stock(SetStockRequest(item_ids=["12048"]))):
        assert (reply.error.code, "the profile store is empty" in reply.error.text) == (503, True)
    assert (platform.store.products, platform.vectors.skus) == ({}, skus)


async def test_while_recall_uses_another_bundle_changes_are_kept_for_it(platform: Platform) -> None:
    platform.vectors.bundle_version = "20200101_000000_00000000"
    stub = await platform.cm()
    for reply in await put_and_remove(stub):
        assert (reply.error.code, "versions differ" in reply.error.text) == (503, True)
    await assert_lookup_and_stock_work(platform, stub)
    platform.vectors.bundle_version = platform.bundle.version
    await assert_changed_later(platform)


async def test_without_the_journal_nothing_is_changed(platform: Platform, tmp_path: Path) -> None:
    platform.journal = SqliteItemJournal(tmp_path / "nowhere" / "items.sqlite")
    stub = await platform.cm()
    for reply in [*await put_and_remove(stub), await change(stub, "set_stock", ["12048"])]:
        assert reply.error.code == 503
        assert "nowhere/items.sqlite cannot be used" in reply.error.text
    assert platform.store.products["12048"] == KNOWN
    assert "12048" in platform.vectors.skus
    assert (await stub.cm_call(CMRequest(item_ids=["12048"]))).error.code == 200
    await platform.changes.catch_up()
    with pytest.raises(Unavailable, match="do not follow the item journal: the item journal"):
        await platform.changes.check()


@pytest.mark.parametrize("repeat", [True, False], ids=["by repeating the call", "in the background"])
async def test_a_change_that_failed_halfway_is_completed(platform: Platform, repeat: bool) -> None:
    stub = await platform.cm()
    platform.store.apply_trouble.fault = Unavailable("the profile store is unavailable (ConnectionError)")
    assert (await stub.put_items(put("new"))).error.code == 503
    platform.store.apply_trouble.fault = None
    assert "new" not in platform.store.products
    if repeat:
        assert (await stub.put_items(put("new"))).error.code == 200
    else:
        await platform.changes.catch_up()
    assert platform.store.products["new"] == Item("new")
    assert platform.vectors.skus.count("new") == 1


async def test_an_item_whose_put_failed_halfway_can_be_removed(platform: Platform) -> None:
    stub = await platform.cm()
    platform.store.apply_trouble.fault = Unavailable("the profile store is unavailable (ConnectionError)")
    assert (await stub.put_items(put("new"))).error.code == 503
    platform.store.apply_trouble.fault = None
    reply = await change(stub, "remove_items", ["new"])
    assert (reply.error.code, reply.done) == (200, 1)
    await platform.changes.catch_up()
    assert ("new" in platform.store.products, "new" in platform.vectors.skus) == (False, False)


async def test_cm_is_not_ready_before_it_has_compared_records_and_journal(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.cm.item_changes.CHECK_TIMEOUT_S", 0.01)
    await platform.cm()
    with pytest.raises(Unavailable, match="have not been compared with the item journal yet"):
        await platform.changes.check()
    await platform.changes.catch_up()
    await platform.changes.check()


async def test_a_store_that_lost_its_data_gets_all_changes_back(platform: Platform) -> None:
    stub = await platform.cm()
    assert (await stub.put_items(put("new"))).error.code == 200
    assert (await change(stub, "remove_items", ["12048"])).error.code == 200
    platform.store.products = {"12048": KNOWN, "99654": Item("99654")}
    platform.store.positions.clear()
    await platform.changes.catch_up()
    assert list(platform.store.products) == ["99654", "new"]


async def test_changes_of_two_replicas_end_as_the_journal_has_them(platform: Platform) -> None:
    stubs = [await platform.cm(), await platform.cm()]
    methods = ("put_items", "remove_items")
    for number in range(20):
        pair = [change(stub, method, ["99654"]) for stub, method in zip(stubs, methods, strict=True)]
        await asyncio.gather(*pair)
        kind = (await platform.journal.changes_of(["99654"], 5.0))["99654"].kind
        is_put = kind is ChangeKind.PUT
        held = ("99654" in platform.store.products, "99654" in platform.vectors.skus)
        assert held == (is_put, is_put), number
        await stubs[0].put_items(put("99654"))

"""Whatever sequence of changes, restarts and requests: what was removed or sold out is not recommended.

Random sequences run against the five services and against a model in plain Python of what must be true.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import structs

from ecrs.bundle import MODELS, Bundle, seal
from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.cm_pb2 import CMRequest, PutItemsRequest, RemoveItemsRequest, SetStockRequest
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.serving.signature import ModelSignature
from tests.catalogue_model import CatalogueModel, like
from tests.eventually import within
from tests.platform import AS, CM, NOW, PUT, RECALL, REMOVE, STOCK, Platform

pytestmark = pytest.mark.hypothesis  # so that `make fuzz` runs it too

USER = "8888"
AWAY = ("um", "cm", "recall", "rank")
"""Services that may be away for a while. The gateway is only restarted."""
STEPS = 25
"""Steps of a sequence; one takes as long as EXAMPLES examples of other tests."""
EXAMPLES = 20
OWN, NEW = 8, 4
"""How many of the bundle's products are changed, and how many new ones are added."""
LIMIT_S = 10.0


@dataclass(frozen=True)
class Shop:
    """The services, and the products that change: the best ones for the user, and new ones like them."""

    platform: Platform
    bundles: tuple[Bundle, Bundle]
    own: list[ItemInfo]
    new: list[ItemInfo]

    @property
    def skus(self) -> list[str]:
        return [info.sku_id for info in (*self.own, *self.new)]

    def record(self, sku: str, *, out_of_stock: bool) -> ItemInfo:
        info = next(info for info in (*self.own, *self.new) if info.sku_id == sku)
        return like(info, sku, out_of_stock=out_of_stock)


def as_file(bundle: Bundle, bundles: Path) -> Bundle:
    """Write a copy of a bundle under another version."""
    path = bundles / "20991231_000000_ffffffff"
    shutil.copytree(bundle.path, path)
    for model in MODELS:
        replace(ModelSignature.load(path / model), version=path.name).save(path / model)
    seal(path, structs.replace(bundle.manifest, version=path.name))
    return Bundle.open(path)


@pytest.fixture(scope="module")
def shop(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        best = platform.ask(AS, ASRequest(user_id=USER, request_num=OWN, now=NOW)).item_infos
        own = [like(info, info.sku_id) for info in best]
        new = [like(info, f"new-{number}") for number, info in enumerate(own[:NEW])]
        other = as_file(tiny, tmp_path_factory.mktemp("bundles"))
        yield Shop(platform, (tiny, other), own, new)


class Sequence(RuleBasedStateMachine):
    """Changes of some products, requests, and services that are away or restarted in between."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self.shop, self.platform = shop, shop.platform
        self.model = CatalogueModel()
        self.away: set[str] = set()

    def teardown(self) -> None:
        for service in sorted(self.away):
            self.comes_back(service)
        if self.platform.bundle is not self.shop.bundles[0]:
            self.go_over_to(self.shop.bundles[0])

    @initialize()
    def begin(self) -> None:
        """Put the bundle's products, and remove the new ones: undo an earlier sequence."""
        self.put({info.sku_id for info in self.shop.own}, out_of_stock=False)
        self.remove({info.sku_id for info in self.shop.new})

    def products(self) -> st.SearchStrategy[set[str]]:
        return st.sets(st.sampled_from(self.shop.skus), min_size=1, max_size=4)

    @precondition(lambda self: self.away.isdisjoint({"cm", "recall"}))
    @rule(data=st.data(), out_of_stock=st.booleans())
    def puts_products(self, data: st.DataObject, out_of_stock: bool) -> None:
        self.put(data.draw(self.products()), out_of_stock=out_of_stock)

    @precondition(lambda self: self.away.isdisjoint({"cm", "recall"}))
    @rule(data=st.data())
    def removes_products(self, data: st.DataObject) -> None:
        self.remove(data.draw(self.products()))

    @precondition(lambda self: "cm" not in self.away)
    @rule(data=st.data(), in_stock=st.booleans())
    def marks_products(self, data: st.DataObject, in_stock: bool) -> None:
        skus = sorted(data.draw(self.products()))
        reply = self.platform.ask(STOCK, SetStockRequest(item_ids=skus, in_stock=in_stock))
        assert reply.error.code == 200, reply
        assert set(reply.missing_ids) == set(skus) & self.model.removed
        self.model.set_stock(skus, in_stock=in_stock)

    @rule(count=st.sampled_from([1, 20, 100]), new_only=st.booleans())
    def asks_for_recommendations(self, count: int, new_only: bool) -> None:
        request = ASRequest(user_id=USER, request_num=count, new_only=new_only, now=NOW)
        self.check_answer(self.platform.ask(AS, request), count)

    @rule(count=st.sampled_from([1, 20, 100]))
    def asks_as_a_new_user(self, count: int) -> None:
        request = ASRequest(user_info=UserInfo(age="5.0"), request_num=count, now=NOW)
        self.check_answer(self.platform.ask(AS, request), count)

    @precondition(lambda self: "cm" not in self.away)
    @rule()
    def looks_products_up(self) -> None:
        lookup = self.platform.ask(CM, CMRequest(item_ids=self.model.skus))
        assert self.model.violations(lookup) == []

    @precondition(lambda self: "recall" not in self.away)
    @rule(channel=st.sampled_from(["", "vector", "cold_start"]))
    def retrieves_candidates(self, channel: str) -> None:
        user = UserInfo(user_id=USER, age="5.0")
        reply = self.platform.ask(
            RECALL, RecallRequest(user_info=user, recall_type=channel, request_num=1000, now=NOW)
        )
        skus = [pair.nid for pair in reply.score_pairs]
        assert reply.error.code == 200, reply
        assert len(skus) == len(set(skus))
        assert self.model.removed.isdisjoint(skus) or channel == ""

    @precondition(lambda self: not self.away)
    @rule(service=st.sampled_from(AWAY))
    def goes_away(self, service: str) -> None:
        self.platform.stop(service)
        self.away.add(service)

    @precondition(lambda self: self.away)
    @rule()
    def is_back(self) -> None:
        self.comes_back(*self.away)

    @rule()
    def the_gateway_restarts(self) -> None:
        self.platform.stop("gateway")
        self.platform.start("gateway")
        if not self.away:
            self.wait_until_noticed()

    @precondition(lambda self: not self.away)
    @rule()
    def another_bundle_goes_live(self) -> None:
        first, second = self.shop.bundles
        self.go_over_to(second if self.platform.bundle is first else first)

    def go_over_to(self, bundle: Bundle) -> None:
        self.platform.use(bundle)
        self.wait_until_noticed()

    def comes_back(self, service: str) -> None:
        self.platform.start(service)
        self.away.discard(service)
        self.wait_until_noticed()

    def wait_until_noticed(self) -> None:
        """Wait until the services use each other again."""
        nothing = RemoveItemsRequest(item_ids=["never there"])
        within(LIMIT_S, lambda: self.platform.ask(REMOVE, nothing).error.code == 200)
        within(LIMIT_S, lambda: not self.platform.ask(AS, ASRequest(user_id=USER)).degraded)

    def put(self, skus: set[str], *, out_of_stock: bool) -> None:
        infos = [self.shop.record(sku, out_of_stock=out_of_stock) for sku in sorted(skus)]
        reply = self.platform.ask(PUT, PutItemsRequest(item_infos=infos))
        assert (reply.error.code, reply.done) == (200, len(infos)), reply
        self.model.put(infos)

    def remove(self, skus: set[str]) -> None:
        reply = self.platform.ask(REMOVE, RemoveItemsRequest(item_ids=sorted(skus)))
        assert reply.error.code == 200, reply
        self.model.remove(skus)

    def check_answer(self, reply: ASResponse, count: int) -> None:
        """A full list without duplicates and without what must not be shown, degraded only for a reason."""
        skus = [info.sku_id for info in reply.item_infos]
        assert reply.error.code == 200, reply.error
        assert len(skus) == len(set(skus)) == count
        assert self.model.hidden.isdisjoint(skus), self.model.hidden & set(skus)
        assert self.away or not reply.degraded, reply.degraded


def test_no_sequence_of_changes_shows_what_was_removed_or_sold_out(shop: Shop) -> None:
    count = max(1, settings.default.max_examples // EXAMPLES)
    run_state_machine_as_test(
        lambda: Sequence(shop), settings=settings(max_examples=count, stateful_step_count=STEPS)
    )

"""While cm is away, a gateway that has just started leaves out items that were removed or sold out."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import PutItemsRequest, RemoveItemsRequest, SetStockRequest
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.rpc.server import FULL
from tests.eventually import eventually
from tests.platform import NOW, PUT, REMOVE, STOCK, Platform

NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def platform(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        yield platform


def recommend(gateway: grpc.Channel) -> ASResponse:
    reply = ASServiceStub(gateway).as_call(ASRequest(user_id="8888", request_num=20, now=NOW), timeout=5)
    assert reply.error.code == 200
    assert len(reply.item_infos) == 20
    return reply


def skus(reply: ASResponse) -> list[str]:
    return [info.sku_id for info in reply.item_infos]


@pytest.mark.parametrize("recall", [{}, {"recall_target": NOWHERE}], ids=["with recall", "without recall"])
def test_a_fresh_gateway_without_cm_leaves_out_removed_and_sold_out_items(
    platform: Platform, recall: dict[str, str]
) -> None:
    with platform.gateway(cm_target=NOWHERE, **recall) as gateway:
        removed, sold_out, changed, *_ = skus(recommend(gateway))
    assert platform.ask(REMOVE, RemoveItemsRequest(item_ids=[removed])).done == 1
    assert platform.ask(STOCK, SetStockRequest(item_ids=[sold_out])).done == 1
    item = ItemInfo(sku_id=changed, brand="changed", shopid="500", cate="70")
    assert platform.ask(PUT, PutItemsRequest(item_infos=[item])).done == 1
    with platform.gateway(cm_target=NOWHERE, **recall) as gateway:
        reply = recommend(gateway)
    assert not {removed, sold_out} & set(skus(reply))
    assert [info.brand for info in reply.item_infos if info.sku_id == changed] in ([], ["changed"])


async def test_a_running_gateway_without_cm_follows_changes(platform: Platform) -> None:
    with platform.gateway(cm_target=NOWHERE, recall_target=NOWHERE) as gateway:
        first = skus(recommend(gateway))[0]
        assert platform.ask(REMOVE, RemoveItemsRequest(item_ids=[first])).done == 1

        async def is_left_out() -> bool:
            return first not in skus(recommend(gateway))

        await eventually(is_left_out)


def test_without_the_journal_the_gateway_answers_and_reports_it_missing(platform: Platform) -> None:
    with platform.gateway(item_journal="sqlite:////nowhere/items.sqlite") as gateway:
        recommend(gateway)
        check = HealthStub(gateway).Check
        states = [
            check(HealthCheckRequest(service=name), timeout=5).status for name in ("", "item_journal", FULL)
        ]
    serving, not_serving = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
    assert states == [serving, not_serving, not_serving]

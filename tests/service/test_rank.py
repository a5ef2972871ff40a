"""The rank service over the tiny bundle's own model."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.rank_pb2 import RankRequest
from ecrs.contract.rank_pb2_grpc import RankServiceStub, add_RankServiceServicer_to_server
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.files import parse_item
from ecrs.rank.ranker import Ranker
from ecrs.rank.service import RankService
from ecrs.rpc.server import Service
from ecrs.serving.models import open_model
from ecrs.serving.served_model import ServedModel
from ecrs.wire.messages import from_item, from_provenance, from_user
from tests.golden import golden_items, golden_provenance, golden_users
from tests.service.conftest import Start


@pytest.fixture
async def model(tiny: Bundle) -> AsyncIterator[ServedModel]:
    async with open_model("inprocess", tiny, "ranker") as served:
        yield served


@pytest.fixture
async def stub(start: Start, tiny: Bundle, model: ServedModel) -> RankServiceStub:
    ranker = Ranker(tiny, model)
    servicer = RankService(ranker, call_timeout_s=5.0)
    channel, running = await start(
        Service(
            "rank",
            "RankService",
            lambda server: add_RankServiceServicer_to_server(servicer, server),
            ranker.check,
        )
    )
    await running.serving()
    return RankServiceStub(channel)


def item_infos(bundle: Bundle, n: int) -> list[ItemInfo]:
    return [from_item(parse_item(line)) for line in list(bundle.lines("products.dat"))[:n]]


async def test_each_item_gets_a_score_in_descending_order(stub: RankServiceStub, tiny: Bundle) -> None:
    infos = item_infos(tiny, 20)
    reply = await stub.rank_predict(RankRequest(user_info=UserInfo(age="5.0"), item_infos=infos))
    assert reply.error.code == 200
    assert reply.bundle_version == tiny.version
    assert sorted(pair.nid for pair in reply.score_pairs) == sorted(info.sku_id for info in infos)
    scores = [pair.score for pair in reply.score_pairs]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)


async def test_items_of_equal_score_keep_the_requests_order(stub: RankServiceStub) -> None:
    skus = ["unseen-3", "unseen-1", "unseen-2"]
    infos = [ItemInfo(sku_id=sku, brand="3456", shopid="6980", cate="70") for sku in skus]
    reply = await stub.rank_predict(RankRequest(user_info=UserInfo(age="5.0"), item_infos=infos))
    assert len({pair.score for pair in reply.score_pairs}) == 1
    assert [pair.nid for pair in reply.score_pairs] == skus


async def test_a_score_does_not_depend_on_the_other_items(stub: RankServiceStub, tiny: Bundle) -> None:
    infos = item_infos(tiny, 20)
    together = await stub.rank_predict(RankRequest(user_info=UserInfo(age="5.0"), item_infos=infos))
    scores = {pair.nid: pair.score for pair in together.score_pairs}
    alone = await stub.rank_predict(RankRequest(user_info=UserInfo(age="5.0"), item_infos=infos[7:8]))
    assert alone.score_pairs[0].score == pytest.approx(scores[infos[7].sku_id], abs=1e-6)


async def test_the_service_reproduces_the_golden_scores(stub: RankServiceStub, tiny: Bundle) -> None:
    provenance = golden_provenance(tiny)
    for n, (user, item) in enumerate(zip(golden_users(tiny), golden_items(tiny), strict=True)):
        request = RankRequest(
            user_info=from_user(user),
            item_infos=[from_item(item)],
            provenance=from_provenance(provenance.take([n])),
            now=tiny.golden["now"],
        )
        reply = await stub.rank_predict(request)
        expected = np.float32(tiny.golden["ranker"]["outputs"][n][0])
        assert reply.score_pairs[0].score == pytest.approx(expected, abs=1e-5), f"golden row {n}"


async def test_unknown_values_are_scored_as_out_of_vocabulary(stub: RankServiceStub) -> None:
    unknown = ItemInfo(sku_id="never seen", brand="?", shopid="?", cate="?")
    reply = await stub.rank_predict(RankRequest(user_info=UserInfo(age="999"), item_infos=[unknown]))
    assert reply.error.code == 200
    assert 0 < reply.score_pairs[0].score < 1


@pytest.mark.parametrize("count", [0, 1001])
async def test_no_items_or_too_many_are_a_bad_request(stub: RankServiceStub, count: int) -> None:
    infos = [ItemInfo(sku_id=str(n)) for n in range(count)]
    reply = await stub.rank_predict(RankRequest(user_info=UserInfo(age="5.0"), item_infos=infos))
    assert reply.error.code == 400
    assert f"got {count}" in reply.error.text
    after = await stub.rank_predict(RankRequest(item_infos=[ItemInfo(sku_id="1")]))
    assert after.error.code == 200

"""rank returns its pairs by descending score, because clients of the original show them in that order."""

import pytest

from ecrs.contract.cm_pb2 import CMRequest
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.rank_pb2 import RankRequest, RankResponse
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.user_info_pb2 import UserInfo
from tests.platform import CM, NOW, RANK, UM, Platform


@pytest.fixture(scope="module")
def user(platform: Platform) -> UserInfo:
    return platform.ask(UM, UserModelRequest(user_id="8888")).user_info


@pytest.fixture(scope="module")
def items(platform: Platform) -> list[ItemInfo]:
    skus = [line.split(":")[0] for line in platform.bundle.lines("products.dat")]
    return list(platform.ask(CM, CMRequest(item_ids=skus[:50])).item_infos)


def rank(platform: Platform, user: UserInfo, items: list[ItemInfo]) -> RankResponse:
    return platform.ask(RANK, RankRequest(user_info=user, item_infos=items, now=NOW))


def test_rank_returns_pairs_in_descending_order_of_score(
    platform: Platform, user: UserInfo, items: list[ItemInfo]
) -> None:
    pairs = rank(platform, user, items).score_pairs
    scores = [pair.score for pair in pairs]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1
    assert sorted(pair.nid for pair in pairs) == sorted(item.sku_id for item in items)


def test_items_shown_in_order_of_score_pairs_are_best_first(
    platform: Platform, user: UserInfo, items: list[ItemInfo]
) -> None:
    """The original's `as.py` looks each `nid` up, sets its `rank_score` and appends it to the answer."""
    records = {item.sku_id: item for item in items}
    shown = []
    for pair in rank(platform, user, items).score_pairs:
        record = records[pair.nid]
        record.rank_score = pair.score
        shown.append(record)
    scores = [item.rank_score for item in shown]
    assert scores == sorted(scores, reverse=True)
    alone = [rank(platform, user, [item]).score_pairs[0].score for item in shown]
    assert scores == pytest.approx(alone, abs=1e-6)

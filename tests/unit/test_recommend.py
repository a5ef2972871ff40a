"""`recommend` over fake stages; tests/service/test_degradation.py covers failures of real services."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from ecrs.bundle import Bundle
from ecrs.contract.cm_pb2 import CMResponse
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import Interaction as InteractionInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.entities import User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.gateway.answer import Answer, CandidateItems, Candidates, Degradation, order_by_score
from ecrs.gateway.fallbacks import FallbackCatalogue
from ecrs.gateway.query import Query, with_session
from ecrs.gateway.recommend import Gateway, StageLimits, recommend
from ecrs.gateway.stages import Stages
from ecrs.gateway.trace import RequestTrace
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import BadRequest, DeadlineExceeded, Fault, NotFound, Unavailable
from ecrs.rpc.load import QualityFactor
from ecrs.wire.messages import from_user, to_user

CAPS = StageLimits(1.0, 1.0, 1.0, 1.0)
ALICE = User("alice", age="5.0")
SKUS = ["a", "b", "c", "d"]
SCORES = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.3, "x": 0.02, "y": 0.01}
BEST_SELLERS = [ItemInfo(sku_id=sku, brand="from the bundle") for sku in ("x", "y", "a")]


@dataclass
class FakeStages:
    """All four stages; `fails` maps a stage to the fault that it raises, `received` to its input."""

    scores_of: dict[str, float] = field(default_factory=lambda: dict(SCORES))
    unknown: frozenset[str] = frozenset()
    out_of_stock: frozenset[str] = frozenset()
    fails: dict[str, Fault] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    received: dict[str, object] = field(default_factory=dict)

    def _receive(self, stage: str, value: object) -> None:
        if stage in self.fails:
            raise self.fails[stage]
        self.received[stage] = value

    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> UserInfo:
        self._receive("user", user_id)
        if user_id != ALICE.id:
            raise NotFound(f"no {user_id}")
        return from_user(ALICE)

    async def candidates(self, user: UserInfo, n: int, query: Query, timeout_s: float) -> Candidates:
        self._receive("recall", to_user(user))
        self.received["n"] = n
        entries = [[("vector", position, 0.5), ("popular", 0, 0.1)] for position in range(1, len(SKUS) + 1)]
        provenance = ProvenanceTable.of(entries, ["popular", "vector"])
        return Candidates(SKUS[:n], provenance.take(slice(n)), "v1", self.missing)

    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, ItemInfo]:
        self._receive("item", log_id)
        return {
            sku: ItemInfo(sku_id=sku, out_of_stock=sku in self.out_of_stock)
            for sku in skus
            if sku not in self.unknown
        }

    async def scores(
        self, user: UserInfo, items: CandidateItems, query: Query, timeout_s: float
    ) -> list[float]:
        self._receive("rank", to_user(user))
        assert len(items.provenance) == len(items.items)
        return [self.scores_of[item.sku_id] for item in items.items]


async def recommend_with(
    fake: FakeStages,
    user_id: str = "alice",
    described: User | None = None,
    n: int = 0,
    seconds: float = 5.0,
    fallbacks: FallbackCatalogue | None = None,
    new_only: bool = False,
    candidates: int = 100,
    depth: QualityFactor | None = None,
    reserve_s: float = 0.01,
):
    info = None if described is None else from_user(described)
    query = Query.of("log-1", user_id, info, n, new_only=new_only)
    deadline = Deadline.after(seconds, default_s=1.0, reserve_s=reserve_s)
    fallbacks = fallbacks or FallbackCatalogue(BEST_SELLERS, "v0")
    depth = depth or QualityFactor(goal_s=1.0, minimum=0.3)
    gateway = Gateway(Stages(fake, fake, fake, fake), fallbacks, CAPS, candidates, depth)
    return await recommend(query, gateway, deadline)


async def test_items_are_ordered_by_score_with_provenance() -> None:
    answer = await recommend_with(FakeStages())
    assert [r.item.sku_id for r in answer.items] == ["b", "d", "c", "a"]
    assert answer.items[0].provenance == [("vector", 2, 0.5)]
    assert answer.bundle_version == "v1"
    assert [(s.name, s.outcome) for s in answer.stages] == [
        ("user", "ok"), ("recall", "ok"), ("item", "ok"), ("rank", "ok"),
    ]  # fmt: skip


def count(name: str, **labels: str) -> float:
    """Return the value of a counter, 0 if it was never incremented."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_items_count_only_for_channels_that_retrieved_them() -> None:
    vector = count("ecrs_recommended_total", channel="vector")
    popular = count("ecrs_recommended_total", channel="popular")
    await recommend_with(FakeStages(), n=3)
    assert count("ecrs_recommended_total", channel="vector") == vector + 3
    assert count("ecrs_recommended_total", channel="popular") == popular


async def test_empty_answer_is_counted() -> None:
    before = count("ecrs_empty_answers_total")
    await recommend_with(FakeStages())
    assert count("ecrs_empty_answers_total") == before
    answer = await recommend_with(FakeStages(out_of_stock=frozenset(SKUS)))
    assert answer.items == []
    assert count("ecrs_empty_answers_total") == before + 1


async def test_answer_is_cut_to_length_after_ranking() -> None:
    answer = await recommend_with(FakeStages(), n=1)
    assert [r.item.sku_id for r in answer.items] == ["b"]


@pytest.mark.parametrize("user_id", ["", "0", "-1"])
async def test_new_user_is_described_by_profile_without_calling_um(user_id: str) -> None:
    fake = FakeStages()
    answer = await recommend_with(fake, user_id, described=User(age="2.0"))
    assert "user" not in fake.received
    assert fake.received["recall"] == User(age="2.0")
    assert answer.stages[0].outcome == "skipped"


async def test_unknown_id_without_profile_is_not_found() -> None:
    with pytest.raises(NotFound, match="no bob"):
        await recommend_with(FakeStages(), "bob")


async def test_unknown_id_with_profile_is_served_by_profile() -> None:
    fake = FakeStages()
    await recommend_with(fake, "bob", described=User(id="bob", age="2.0"))
    assert fake.received["recall"] == User(id="bob", age="2.0")


async def test_session_precedes_stored_history() -> None:
    stored = User("alice", history=(Interaction("old", 1),))
    session = User(history=(Interaction("new", 2),))
    both = to_user(with_session(from_user(stored), from_user(session)))
    assert [i.sku for i in both.history] == ["new", "old"]
    assert both.aggregates.skus == ("new",)


async def test_session_of_new_user_is_added_to_aggregates() -> None:
    fake = FakeStages()
    await recommend_with(fake, "", described=User(history=(Interaction("new", 2),)))
    assert fake.received["recall"].aggregates.skus == ("new",)


async def test_items_without_a_record_are_left_out() -> None:
    answer = await recommend_with(FakeStages(unknown=frozenset({"b"})))
    assert [r.item.sku_id for r in answer.items] == ["d", "c", "a"]


async def test_items_out_of_stock_are_neither_ranked_nor_returned() -> None:
    fake = FakeStages(out_of_stock=frozenset({"b"}), scores_of={"a": 0.1, "c": 0.2, "d": 0.3})
    answer = await recommend_with(fake)
    assert [r.item.sku_id for r in answer.items] == ["d", "c", "a"]


async def test_nothing_in_stock_gives_an_empty_answer() -> None:
    fake = FakeStages(out_of_stock=frozenset(SKUS))
    answer = await recommend_with(fake)
    assert answer.items == []
    assert "rank" not in fake.received
    assert (answer.stages[-1].name, answer.stages[-1].outcome) == ("rank", "skipped")


async def test_missing_channel_is_reported_as_degradation() -> None:
    answer = await recommend_with(FakeStages(missing=("vector",)))
    assert answer.degraded == [Degradation("recall", "without vector")]


async def test_item_lookup_down_uses_records_last_read() -> None:
    fallbacks = FallbackCatalogue(BEST_SELLERS, "v0")
    await recommend_with(
        FakeStages(out_of_stock=frozenset({"c"}), unknown=frozenset({"a"})), fallbacks=fallbacks
    )
    down = FakeStages(fails={"item": NotFound("none of them")})
    answer = await recommend_with(down, n=3, fallbacks=fallbacks)
    assert [r.item.sku_id for r in answer.items] == ["b", "d", "a"]
    assert answer.items[2].item == BEST_SELLERS[2]
    assert answer.degraded == [Degradation("item", "last read")]


async def test_item_lookup_down_without_records_gives_popular_items() -> None:
    fallbacks = FallbackCatalogue([ItemInfo(sku_id="x"), ItemInfo(sku_id="y")], "v0")
    answer = await recommend_with(FakeStages(fails={"item": Unavailable("down")}), fallbacks=fallbacks)
    assert {r.item.sku_id for r in answer.items} == {"x", "y"}
    assert answer.degraded == [Degradation("item", "popular")]


@dataclass
class PartlyReadStages(FakeStages):
    """The item stage is away, and of its candidates only "b", and "x" as out of stock, were read before."""

    async def recommend(self, best_sellers: str, n: int, **arguments: Any) -> Answer:
        fallbacks = FallbackCatalogue([ItemInfo(sku_id=sku) for sku in best_sellers], "v0")
        fallbacks.remember({"b": ItemInfo(sku_id="b"), "x": ItemInfo(sku_id="x", out_of_stock=True)})
        self.fails["item"] = Unavailable("down")
        return await recommend_with(self, n=n, fallbacks=fallbacks, **arguments)


async def test_too_few_records_last_read_are_filled_up_with_popular_items_in_stock() -> None:
    answer = await PartlyReadStages(scores_of={"b": 0.4, "y": 0.3, "z": 0.2}).recommend("xybz", n=3)
    assert [r.item.sku_id for r in answer.items] == ["b", "y", "z"]
    assert [[channel for channel, *_ in r.provenance] for r in answer.items] == [
        ["vector"], ["popular"], ["popular"],
    ]  # fmt: skip
    assert answer.degraded == [Degradation("item", "last read"), Degradation("item", "popular")]


async def test_enough_records_last_read_are_not_filled_up() -> None:
    answer = await PartlyReadStages().recommend("xyz", n=1)
    assert [r.item.sku_id for r in answer.items] == ["b"]
    assert answer.degraded == [Degradation("item", "last read")]


async def test_filled_up_list_respects_new_only() -> None:
    bought = User(age="1", history=(Interaction("y", 1, ActionType.ORDER),))
    stages = PartlyReadStages(scores_of={"b": 0.4, "z": 0.2})
    answer = await stages.recommend("xyz", n=3, user_id="", described=bought, new_only=True)
    assert [r.item.sku_id for r in answer.items] == ["b", "z"]


async def test_popular_items_are_not_named_if_none_was_added() -> None:
    answer = await PartlyReadStages().recommend("xb", n=3)
    assert [r.item.sku_id for r in answer.items] == ["b"]
    assert answer.degraded == [Degradation("item", "last read")]


async def test_nothing_in_stock_gives_an_empty_answer_without_a_channel_too() -> None:
    fake = FakeStages(out_of_stock=frozenset(SKUS), missing=("vector",))
    assert (await recommend_with(fake)).items == []


async def test_no_time_left_gives_popular_items() -> None:
    answer = await recommend_with(FakeStages(), seconds=0.0)
    assert [r.item.sku_id for r in answer.items] == ["x", "y", "a"]


def test_invalid_session_is_refused_when_the_query_is_parsed() -> None:
    session = UserInfo(history=[InteractionInfo(sku_id="a", ts=-1)])
    with pytest.raises(BadRequest, match=r"user_info\.history\[0\]\.ts"):
        Query.of("", "alice", session, 10)


def record_late_answers(depth: QualityFactor, times: int = 1) -> QualityFactor:
    for _ in range(times):
        depth.record(2.0)
    return depth


async def test_load_reduces_ranking_depth_and_keeps_retrieval_order_beyond_it() -> None:
    fake, depth = FakeStages(), record_late_answers(QualityFactor(goal_s=1.0, minimum=0.3), times=4)
    answer = await recommend_with(fake, n=4, candidates=4, depth=depth)  # 0.6 of 4, rounded up
    assert [r.item.sku_id for r in answer.items] == ["b", "c", "a", "d"]
    assert (answer.ranked, answer.degraded) == (3, [])


async def test_load_reduces_retrieval_but_not_below_the_requested_number() -> None:
    depth = record_late_answers(QualityFactor(goal_s=1.0, minimum=0.5), times=9)
    for n, recalled in ((1, 2), (3, 4), (20, 22), (1000, 1000)):
        fake = FakeStages()
        await recommend_with(fake, n=n, candidates=4, depth=depth)
        assert fake.received["n"] == recalled


async def test_load_does_not_shorten_a_list_from_which_a_sold_out_item_is_dropped() -> None:
    depth = record_late_answers(QualityFactor(goal_s=1.0, minimum=0.5), times=9)
    answer = await recommend_with(FakeStages(out_of_stock=frozenset("a")), n=3, candidates=4, depth=depth)
    assert {r.item.sku_id for r in answer.items} == {"b", "c", "d"}


async def test_ranking_depth_recovers_with_timely_answers_and_ignores_degraded_ones() -> None:
    depth = record_late_answers(QualityFactor(goal_s=0.0, minimum=0.3))
    assert depth.share_of(100) == 90
    await recommend_with(FakeStages(fails={"rank": Unavailable("down")}), depth=depth)
    assert depth.share_of(100) == 90
    for _ in range(10):
        depth.record(0.0)
    assert depth.share_of(100) == 100


@pytest.mark.parametrize("fault", [DeadlineExceeded("slow"), Unavailable("down")])
async def test_failed_or_hanging_stage_does_not_reduce_ranking_depth(fault: Fault) -> None:
    """Otherwise a shop with little traffic would rank fewer candidates long after the service recovered."""
    depth = QualityFactor(goal_s=-1.0, minimum=0.3)  # so that every answer is late
    await recommend_with(FakeStages(fails={"rank": fault}), depth=depth)
    assert depth.share_of(10) == 10
    await recommend_with(FakeStages(), depth=depth)
    assert depth.share_of(10) == 9


def test_fallbacks_evict_least_recently_used_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecrs.gateway.fallbacks.MAX_ITEMS_KEPT", 2)
    monkeypatch.setattr("ecrs.gateway.fallbacks.REFRESH_S", -1.0)
    fallbacks = FallbackCatalogue([], "v0")
    for sku in "abac":
        fallbacks.remember({sku: ItemInfo(sku_id=sku)})
    assert set(fallbacks.records("abc")) == {"a", "c"}


@pytest.mark.parametrize(("fresh_s", "kept"), [(60.0, "1"), (-1.0, "2")])
def test_fallbacks_replace_a_record_unless_it_is_recent(
    monkeypatch: pytest.MonkeyPatch, fresh_s: float, kept: str
) -> None:
    monkeypatch.setattr("ecrs.gateway.fallbacks.REFRESH_S", fresh_s)
    fallbacks = FallbackCatalogue([], "v0")
    for brand in "12":
        fallbacks.remember({"a": ItemInfo(sku_id="a", brand=brand)})
    assert fallbacks.records("a")["a"].brand == kept


def test_fallbacks_copy_records_out_of_the_reply() -> None:
    fallbacks, reply = FallbackCatalogue([], "v0"), CMResponse(item_infos=[ItemInfo(sku_id="a", brand="1")])
    fallbacks.remember({item.sku_id: item for item in reply.item_infos})
    reply.item_infos[0].brand = "2"  # a record that still belongs to the reply changes with it
    assert fallbacks.records("a") == {"a": ItemInfo(sku_id="a", brand="1")}


def test_fallbacks_of_a_bundle_are_its_most_sold_items(tiny: Bundle) -> None:
    fallbacks = FallbackCatalogue.of(tiny)
    skus = fallbacks.popular(UserInfo(), 1000, new_only=False).skus
    share = dict(zip(tiny.catalogue.skus, np.load(tiny.path / "recall" / "popular.npy"), strict=True))
    shares = [share[sku] for sku in skus]
    assert len(skus) == len(share)
    assert shares == sorted(shares, reverse=True)
    assert fallbacks.records(["99654"])["99654"].brand == "11"


def test_query_without_user_is_refused() -> None:
    with pytest.raises(BadRequest, match="the request names no user"):
        Query.of("log-1", "0", None, 10)


def test_query_for_too_many_items_is_refused() -> None:
    with pytest.raises(BadRequest, match="at most 1000"):
        Query.of("log-1", "alice", None, 1001)


@given(st.permutations(SKUS), st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(1, 6))
def test_ranking_is_a_permutation_of_its_input(order: list[str], scores: list[float], n: int) -> None:
    items = CandidateItems([ItemInfo(sku_id=sku) for sku in order], ProvenanceTable.empty(4))
    ranked = order_by_score(4, items, scores)
    assert sorted(r.item.sku_id for r in ranked) == SKUS
    assert [r.score for r in ranked] == sorted(scores, reverse=True)
    assert order_by_score(n, items, []) == order_by_score(4, items, [])[:n]
    partly_ranked = [r.item.sku_id for r in order_by_score(4, items, scores[:2])]
    assert sorted(partly_ranked[:2]) == sorted(order[:2])
    assert partly_ranked[2:] == order[2:]


def test_trace_records_error_and_cancellation_as_outcomes() -> None:
    trace = RequestTrace()
    for error in (RuntimeError("a bug"), asyncio.CancelledError()):
        with pytest.raises(type(error)), trace.stage("rank"):
            raise error
    assert [stage.outcome for stage in trace.stages] == ["error", "cancelled"]

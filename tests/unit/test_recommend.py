"""`recommend` over stages in this process. Failures of real services: tests/service/test_degradation.py."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

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
from ecrs.domain.actions import Interaction
from ecrs.domain.entities import User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.gateway.answer import CandidateItems, Candidates, Degradation, order_by_score
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
BEST_SELLERS = [ItemInfo(sku_id=sku, brand="seen in the bundle") for sku in ("x", "y", "a")]


@dataclass
class FakePorts:
    """All four ports; `fails` maps a stage to the fault it raises."""

    scores_of: dict[str, float] = field(default_factory=lambda: dict(SCORES))
    unknown: frozenset[str] = frozenset()
    out_of_stock: frozenset[str] = frozenset()
    fails: dict[str, Fault] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    seen: dict[str, object] = field(default_factory=dict)

    def _reach(self, stage: str, value: object) -> None:
        if stage in self.fails:
            raise self.fails[stage]
        self.seen[stage] = value

    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> UserInfo:
        self._reach("user", user_id)
        if user_id != ALICE.id:
            raise NotFound(f"no {user_id}")
        return from_user(ALICE)

    async def candidates(self, user: UserInfo, n: int, query: Query, timeout_s: float) -> Candidates:
        self._reach("recall", to_user(user))
        self.seen["n"] = n
        said = [[("vector", place, 0.5), ("popular", 0, 0.1)] for place in range(1, len(SKUS) + 1)]
        provenance = ProvenanceTable.of(said, ["popular", "vector"])
        return Candidates(SKUS[:n], provenance.take(slice(n)), "v1", self.missing)

    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, ItemInfo]:
        self._reach("item", log_id)
        return {
            sku: ItemInfo(sku_id=sku, out_of_stock=sku in self.out_of_stock)
            for sku in skus
            if sku not in self.unknown
        }

    async def scores(
        self, user: UserInfo, known: CandidateItems, query: Query, timeout_s: float
    ) -> list[float]:
        self._reach("rank", to_user(user))
        assert len(known.provenance) == len(known.items)
        return [self.scores_of[item.sku_id] for item in known.items]


async def ask(
    fake: FakePorts,
    user_id: str = "alice",
    described: User | None = None,
    n: int = 0,
    seconds: float = 5.0,
    shelf: FallbackCatalogue | None = None,
    new_only: bool = False,
    candidates: int = 100,
    quality: QualityFactor | None = None,
    reserve_s: float = 0.01,
):
    info = None if described is None else from_user(described)
    query = Query.of("log-1", user_id, info, n, new_only=new_only)
    deadline = Deadline.after(seconds, default_s=1.0, reserve_s=reserve_s)
    shelf = shelf or FallbackCatalogue(BEST_SELLERS, "v0")
    quality = quality or QualityFactor(goal_s=1.0, minimum=0.3)
    gateway = Gateway(Stages(fake, fake, fake, fake), shelf, CAPS, candidates, quality)
    return await recommend(query, gateway, deadline)


async def test_items_come_best_score_first_with_their_provenance() -> None:
    answer = await ask(FakePorts())
    assert [r.item.sku_id for r in answer.items] == ["b", "d", "c", "a"]
    assert answer.items[0].provenance == [("vector", 2, 0.5)]
    assert answer.bundle_version == "v1"
    assert [(s.name, s.outcome) for s in answer.stages] == [
        ("user", "ok"), ("recall", "ok"), ("item", "ok"), ("rank", "ok"),
    ]  # fmt: skip


def count(name: str, **labels: str) -> float:
    """The metric's value, 0 before it has one."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_items_count_for_the_channels_that_found_them_not_for_those_with_a_score() -> None:
    vector = count("ecrs_recommended_total", channel="vector")
    popular = count("ecrs_recommended_total", channel="popular")
    await ask(FakePorts(), n=3)
    assert count("ecrs_recommended_total", channel="vector") == vector + 3
    assert count("ecrs_recommended_total", channel="popular") == popular


async def test_an_answer_without_items_is_counted() -> None:
    before = count("ecrs_empty_answers_total")
    await ask(FakePorts())
    assert count("ecrs_empty_answers_total") == before
    answer = await ask(FakePorts(out_of_stock=frozenset(SKUS)))
    assert answer.items == []
    assert count("ecrs_empty_answers_total") == before + 1


async def test_the_best_are_taken_after_ranking_not_before() -> None:
    answer = await ask(FakePorts(), n=1)
    assert [r.item.sku_id for r in answer.items] == ["b"]


@pytest.mark.parametrize("user_id", ["", "0", "-1"])
async def test_a_new_user_is_known_by_profile_and_um_is_not_asked(user_id: str) -> None:
    fake = FakePorts()
    answer = await ask(fake, user_id, described=User(age="2.0"))
    assert "user" not in fake.seen
    assert fake.seen["recall"] == User(age="2.0")
    assert answer.stages[0].outcome == "skipped"


async def test_an_unknown_id_without_profile_is_ums_error() -> None:
    with pytest.raises(NotFound, match="no bob"):
        await ask(FakePorts(), "bob")


async def test_an_unknown_id_with_profile_is_served_by_profile() -> None:
    fake = FakePorts()
    await ask(fake, "bob", described=User(id="bob", age="2.0"))
    assert fake.seen["recall"] == User(id="bob", age="2.0")


async def test_a_session_goes_before_the_stored_history() -> None:
    stored = User("alice", history=(Interaction("old", 1),))
    session = User(history=(Interaction("new", 2),))
    both = to_user(with_session(from_user(stored), from_user(session)))
    assert [i.sku for i in both.history] == ["new", "old"]
    assert both.aggregates.skus == ("new",)


async def test_a_session_of_a_new_user_is_also_in_the_aggregates() -> None:
    fake = FakePorts()
    await ask(fake, "", described=User(history=(Interaction("new", 2),)))
    assert fake.seen["recall"].aggregates.skus == ("new",)


async def test_items_without_a_record_are_left_out() -> None:
    answer = await ask(FakePorts(unknown=frozenset({"b"})))
    assert [r.item.sku_id for r in answer.items] == ["d", "c", "a"]


async def test_items_out_of_stock_are_left_out_and_not_ranked() -> None:
    fake = FakePorts(out_of_stock=frozenset({"b"}), scores_of={"a": 0.1, "c": 0.2, "d": 0.3})
    answer = await ask(fake)
    assert [r.item.sku_id for r in answer.items] == ["d", "c", "a"]


async def test_nothing_in_stock_is_an_empty_answer() -> None:
    fake = FakePorts(out_of_stock=frozenset(SKUS))
    answer = await ask(fake)
    assert answer.items == []
    assert "rank" not in fake.seen
    assert (answer.stages[-1].name, answer.stages[-1].outcome) == ("rank", "skipped")


async def test_recall_without_a_channel_says_so() -> None:
    answer = await ask(FakePorts(missing=("vector",)))
    assert answer.degraded == [Degradation("recall", "without vector")]


async def test_without_cm_items_have_the_records_last_read() -> None:
    shelf = FallbackCatalogue(BEST_SELLERS, "v0")
    await ask(FakePorts(out_of_stock=frozenset({"c"}), unknown=frozenset({"a"})), shelf=shelf)
    answer = await ask(FakePorts(fails={"item": NotFound("none of them")}), shelf=shelf)
    assert [r.item.sku_id for r in answer.items] == ["b", "d", "a"]
    assert answer.items[2].item == BEST_SELLERS[2]
    assert answer.degraded == [Degradation("item", "last read")]


async def test_cm_down_and_nothing_of_recalls_was_seen_is_what_sells() -> None:
    shelf = FallbackCatalogue([ItemInfo(sku_id="x"), ItemInfo(sku_id="y")], "v0")
    answer = await ask(FakePorts(fails={"item": Unavailable("away")}), shelf=shelf)
    assert {r.item.sku_id for r in answer.items} == {"x", "y"}
    assert answer.degraded == [Degradation("item", "popular")]


async def test_nothing_in_stock_stays_an_empty_answer_when_another_part_is_away() -> None:
    fake = FakePorts(out_of_stock=frozenset(SKUS), missing=("vector",))
    assert (await ask(fake)).items == []


async def test_no_time_at_all_is_what_sells() -> None:
    answer = await ask(FakePorts(), seconds=0.0)
    assert [r.item.sku_id for r in answer.items] == ["x", "y", "a"]


def test_a_user_who_cannot_be_is_refused_before_any_service_is_asked() -> None:
    session = UserInfo(history=[InteractionInfo(sku_id="a", ts=-1)])
    with pytest.raises(BadRequest, match=r"user_info\.history\[0\]\.ts"):
        Query.of("", "alice", session, 10)


def late(quality: QualityFactor, times: int = 1) -> QualityFactor:
    for _ in range(times):
        quality.record(2.0)
    return quality


async def test_under_load_fewer_are_ranked_and_the_others_follow_in_recalls_order() -> None:
    fake, quality = FakePorts(), late(QualityFactor(goal_s=1.0, minimum=0.3), times=4)
    answer = await ask(fake, n=4, candidates=4, quality=quality)  # .6 of 4
    assert [r.item.sku_id for r in answer.items] == ["b", "c", "a", "d"]
    assert (answer.ranked, answer.degraded) == (3, [])


async def test_under_load_fewer_than_the_candidates_are_recalled_but_never_fewer_than_asked() -> None:
    quality = late(QualityFactor(goal_s=1.0, minimum=0.5), times=9)
    for n, recalled in ((1, 2), (3, 3)):
        fake = FakePorts()
        await ask(fake, n=n, candidates=4, quality=quality)
        assert fake.seen["n"] == recalled


async def test_quality_comes_back_with_answers_in_time_and_is_not_lost_to_a_part_that_is_away() -> None:
    quality = late(QualityFactor(goal_s=0.0, minimum=0.3))
    assert quality.share_of(100) == 90
    await ask(FakePorts(fails={"rank": Unavailable("away")}), quality=quality)
    assert quality.share_of(100) == 90
    for _ in range(10):
        quality.record(0.0)
    assert quality.share_of(100) == 100


@pytest.mark.parametrize("fault", [DeadlineExceeded("slow"), Unavailable("away")])
async def test_a_part_that_is_away_or_hangs_is_no_load(fault: Fault) -> None:
    """Else a shop with few customers would rank fewer candidates long after the part is back."""
    seen = QualityFactor(goal_s=-1.0, minimum=0.3)  # every answer is late
    await ask(FakePorts(fails={"rank": fault}), quality=seen)
    assert seen.share_of(10) == 10
    await ask(FakePorts(), quality=seen)
    assert seen.share_of(10) == 9


def test_the_shelf_forgets_what_was_not_seen_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecrs.gateway.fallbacks.MAX_ITEMS_KEPT", 2)
    monkeypatch.setattr("ecrs.gateway.fallbacks.REFRESH_S", -1.0)
    shelf = FallbackCatalogue([], "v0")
    for sku in "abac":
        shelf.remember({sku: ItemInfo(sku_id=sku)})
    assert set(shelf.records("abc")) == {"a", "c"}


@pytest.mark.parametrize(("fresh_s", "kept"), [(60.0, "1"), (-1.0, "2")])
def test_the_shelf_keeps_a_record_anew_unless_it_did_so_lately(
    monkeypatch: pytest.MonkeyPatch, fresh_s: float, kept: str
) -> None:
    monkeypatch.setattr("ecrs.gateway.fallbacks.REFRESH_S", fresh_s)
    shelf = FallbackCatalogue([], "v0")
    for brand in "12":
        shelf.remember({"a": ItemInfo(sku_id="a", brand=brand)})
    assert shelf.records("a")["a"].brand == kept


def test_the_shelf_keeps_records_and_not_the_replies_that_they_came_in() -> None:
    shelf, reply = FallbackCatalogue([], "v0"), CMResponse(item_infos=[ItemInfo(sku_id="a", brand="1")])
    shelf.remember({item.sku_id: item for item in reply.item_infos})
    reply.item_infos[0].brand = "2"  # what is of the reply shows it
    assert shelf.records("a") == {"a": ItemInfo(sku_id="a", brand="1")}


def test_the_shelf_of_a_bundle_is_its_best_sellers(tiny: Bundle) -> None:
    shelf = FallbackCatalogue.of(tiny)
    found = shelf.popular(UserInfo(), 1000, new_only=False).skus
    share = dict(zip(tiny.catalogue.skus, np.load(tiny.path / "recall" / "popular.npy"), strict=True))
    shares = [share[sku] for sku in found]
    assert len(found) == len(share)
    assert shares == sorted(shares, reverse=True)
    assert shelf.records(["99654"])["99654"].brand == "11"


def test_a_query_must_say_for_whom() -> None:
    with pytest.raises(BadRequest, match="the request names no user"):
        Query.of("log-1", "0", None, 10)


def test_a_query_for_too_many_is_refused() -> None:
    with pytest.raises(BadRequest, match="at most 1000"):
        Query.of("log-1", "alice", None, 1001)


@given(st.permutations(SKUS), st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(1, 6))
def test_ranking_is_a_permutation_of_what_is_known(order: list[str], scores: list[float], n: int) -> None:
    known = CandidateItems([ItemInfo(sku_id=sku) for sku in order], ProvenanceTable.empty(4))
    ranked = order_by_score(4, known, scores)
    assert sorted(r.item.sku_id for r in ranked) == SKUS
    assert [r.score for r in ranked] == sorted(scores, reverse=True)
    assert order_by_score(n, known, []) == order_by_score(4, known, [])[:n]
    some = [r.item.sku_id for r in order_by_score(4, known, scores[:2])]
    assert sorted(some[:2]) == sorted(order[:2])
    assert some[2:] == order[2:]


def test_a_stage_that_ends_otherwise_is_not_ok() -> None:
    trace = RequestTrace()
    for error in (RuntimeError("a bug"), asyncio.CancelledError()):
        with pytest.raises(type(error)), trace.stage("rank"):
            raise error
    assert [stage.outcome for stage in trace.stages] == ["error", "cancelled"]

"""The gateway's way through its stages, over ports that answer or fail as told."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.actions import Interaction
from ecrs.domain import Item, User
from ecrs.gateway.domain import Candidate, Candidates, Found, Query, Source, Trace, assemble, with_session
from ecrs.gateway.recommend import Caps, Ports, recommend
from ecrs.kit.budget import Budget
from ecrs.kit.errors import BadRequest, Fault, NotFound, OutOfTime, Unavailable

CAPS = Caps(1.0, 1.0, 1.0, 1.0)
ALICE = User("alice", age="5.0")
SKUS = ["a", "b", "c", "d"]


@dataclass
class FakePorts:
    """All four ports; `fails` maps a stage to the fault it raises."""

    scores_of: dict[str, float] = field(default_factory=lambda: {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.3})
    unknown: frozenset[str] = frozenset()
    out_of_stock: frozenset[str] = frozenset()
    fails: dict[str, Fault] = field(default_factory=dict)
    seen: dict[str, object] = field(default_factory=dict)

    def _reach(self, stage: str, value: object) -> None:
        if stage in self.fails:
            raise self.fails[stage]
        self.seen[stage] = value

    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> User:
        self._reach("user", user_id)
        if user_id != ALICE.id:
            raise NotFound(f"no {user_id}")
        return ALICE

    async def candidates(self, user: User, n: int, query: Query, timeout_s: float) -> Candidates:
        self._reach("recall", user)
        score_only = Source("popular", 0, 0.1)
        found = [
            Candidate(sku, (Source("vector", place, 0.5), score_only)) for place, sku in enumerate(SKUS, 1)
        ]
        return Candidates(found[:n], "v1")

    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, Item]:
        self._reach("item", log_id)
        return {
            sku: Item(sku, out_of_stock=sku in self.out_of_stock) for sku in skus if sku not in self.unknown
        }

    async def scores(
        self, user: User, items: Sequence[Found], query: Query, timeout_s: float
    ) -> dict[str, float]:
        self._reach("rank", user)
        return {one.item.sku: self.scores_of[one.item.sku] for one in items}


async def ask(
    fake: FakePorts, user_id: str = "alice", described: User | None = None, n: int = 0, seconds: float = 5.0
):
    query = Query.of("log-1", user_id, described, n)
    budget = Budget.of(seconds, default_s=1.0)
    return await recommend(query, Ports(fake, fake, fake, fake), budget, CAPS, candidates=100)


async def test_items_come_best_score_first_with_their_sources() -> None:
    answer = await ask(FakePorts())
    assert [r.item.sku for r in answer.items] == ["b", "d", "c", "a"]
    assert answer.items[0].sources == (Source("vector", 2, 0.5),)
    assert answer.bundle_version == "v1"
    assert [(s.name, s.outcome) for s in answer.stages] == [
        ("user", "ok"), ("recall", "ok"), ("item", "ok"), ("rank", "ok"),
    ]  # fmt: skip


async def test_the_best_are_taken_after_ranking_not_before() -> None:
    answer = await ask(FakePorts(), n=1)
    assert [r.item.sku for r in answer.items] == ["b"]


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
    both = with_session(stored, session)
    assert [i.sku for i in both.history] == ["new", "old"]
    assert both.totals.skus == ("new",)


async def test_a_session_of_a_new_user_is_also_in_the_totals() -> None:
    fake = FakePorts()
    await ask(fake, "", described=User(history=(Interaction("new", 2),)))
    assert fake.seen["recall"].totals.skus == ("new",)


async def test_items_without_a_record_are_left_out() -> None:
    answer = await ask(FakePorts(unknown=frozenset({"b"})))
    assert [r.item.sku for r in answer.items] == ["d", "c", "a"]


async def test_items_out_of_stock_are_left_out_and_not_ranked() -> None:
    fake = FakePorts(out_of_stock=frozenset({"b"}), scores_of={"a": 0.1, "c": 0.2, "d": 0.3})
    answer = await ask(fake)
    assert [r.item.sku for r in answer.items] == ["d", "c", "a"]


async def test_nothing_in_stock_is_an_empty_answer() -> None:
    fake = FakePorts(out_of_stock=frozenset(SKUS))
    answer = await ask(fake)
    assert answer.items == []
    assert "rank" not in fake.seen
    assert (answer.stages[-1].name, answer.stages[-1].outcome) == ("rank", "skipped")


@pytest.mark.parametrize("fault", [Unavailable("away"), OutOfTime("slow")])
async def test_rank_down_keeps_recall_order(fault: Fault) -> None:
    answer = await ask(FakePorts(fails={"rank": fault}))
    assert [r.item.sku for r in answer.items] == SKUS
    assert answer.stages[-1].outcome == fault.outcome


@pytest.mark.parametrize("stage", ["user", "recall", "item"])
async def test_a_stage_that_is_needed_passes_its_fault_on(stage: str) -> None:
    with pytest.raises(Unavailable, match="away"):
        await ask(FakePorts(fails={stage: Unavailable("away")}))


async def test_no_time_at_all_is_out_of_time() -> None:
    with pytest.raises(OutOfTime):
        await ask(FakePorts(), seconds=0.0)


def test_a_query_must_say_for_whom() -> None:
    with pytest.raises(BadRequest, match="neither user_id nor user_info"):
        Query.of("log-1", "0", None, 10)


def test_a_query_for_too_many_is_refused() -> None:
    with pytest.raises(BadRequest, match="at most 1000"):
        Query.of("log-1", "alice", None, 1001)


@given(st.permutations(SKUS), st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(1, 6))
def test_ranking_is_a_permutation_of_what_is_known(order: list[str], scores: list[float], n: int) -> None:
    known = [Found(Item(sku), ()) for sku in order]
    ranked = assemble(4, known, dict(zip(SKUS, scores, strict=True)))
    assert sorted(r.item.sku for r in ranked) == SKUS
    assert [r.score for r in ranked] == sorted(scores, reverse=True)
    assert assemble(n, known, None) == assemble(4, known, None)[:n]


def test_a_stage_that_ends_otherwise_is_not_ok() -> None:
    trace = Trace()
    for error in (RuntimeError("a bug"), asyncio.CancelledError()):
        with pytest.raises(type(error)), trace.stage("rank"):
            raise error
    assert [stage.outcome for stage in trace.stages] == ["error", "cancelled"]

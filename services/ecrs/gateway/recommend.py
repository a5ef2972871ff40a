"""The way of one answer through the stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ecrs.domain import Item, User
from ecrs.gateway.domain import Answer, Candidates, Found, Query, Trace, assemble, with_session, with_totals
from ecrs.kit.budget import Budget
from ecrs.kit.errors import NotFound, OutOfTime, Unavailable


class Users(Protocol):
    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> User:
        """The stored user; NotFound, with um's own text, if unknown."""


class Recall(Protocol):
    async def candidates(self, user: User, n: int, query: Query, timeout_s: float) -> Candidates: ...


class Items(Protocol):
    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, Item]:
        """The known ones of `skus`."""


class Rank(Protocol):
    async def scores(
        self, user: User, items: Sequence[Found], query: Query, timeout_s: float
    ) -> dict[str, float]: ...


@dataclass(frozen=True)
class Ports:
    """The stages' services."""

    users: Users
    recall: Recall
    items: Items
    rank: Rank


@dataclass(frozen=True)
class Caps:
    """The most a stage may take, seconds."""

    user_s: float
    recall_s: float
    item_s: float
    rank_s: float


async def recommend(query: Query, ports: Ports, budget: Budget, caps: Caps, candidates: int) -> Answer:
    """At most `query.n` items, best first, without duplicates, within `budget`.

    At least `candidates` are recalled, so that there is something to rank. Fewer than `query.n` are
    answered when some of them were removed or are out of stock. Raises NotFound only if a user id was
    given, is unknown, and the request does not describe the user.
    """
    trace = Trace()
    user = await _identify(query, ports.users, budget, caps, trace)
    with trace.stage("recall"):
        timeout_s = budget.stage("recall", caps.recall_s)
        # More than is asked for: ranking then has a choice, and what cm does not know any more or has
        # out of stock, which recall cannot tell, takes nobody's place.
        recalled = await ports.recall.candidates(user, max(query.n, candidates), query, timeout_s)
    skus = [candidate.sku for candidate in recalled.found]
    with trace.stage("item"):
        items = await ports.items.lookup(skus, query.log_id, budget.stage("item", caps.item_s))
    known = [
        Found(item, one.sources)
        for one in recalled.found
        if (item := items.get(one.sku)) is not None and not item.out_of_stock
    ]
    scores = await _rank(query, user, known, ports.rank, budget, caps, trace)
    return Answer(assemble(query.n, known, scores), recalled.bundle_version, trace.stages)


async def _identify(query: Query, users: Users, budget: Budget, caps: Caps, trace: Trace) -> User:
    if not query.user_id:
        trace.skip("user")
        return with_totals(query.described or User())
    try:
        with trace.stage("user"):
            timeout_s = budget.stage("user", caps.user_s)
            return with_session(await users.profile(query.user_id, query.log_id, timeout_s), query.described)
    except NotFound:
        if query.described is None:
            raise
        return with_totals(query.described)


async def _rank(
    query: Query, user: User, known: list[Found], rank: Rank, budget: Budget, caps: Caps, trace: Trace
) -> dict[str, float] | None:
    """Scores by sku, or None, which keeps recall's order, when rank does not answer in time."""
    if not known:
        trace.skip("rank")
        return None
    try:
        with trace.stage("rank"):
            return await rank.scores(user, known, query, budget.stage("rank", caps.rank_s))
    except (Unavailable, OutOfTime):
        return None

"""The way of one answer through the stages, and what stands in for a stage that is away.

user    what the request itself says of the user
recall  what sells, held in memory since the start
item    records as they were last seen
rank    recall's order

So only a request that is wrong gets an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.gateway.domain import Answer, Candidates, Found, Query, Trace, assemble, with_session, with_totals
from ecrs.gateway.shelf import Shelf
from ecrs.kit.budget import Budget
from ecrs.kit.errors import BadRequest, Fault, NotFound


class Users(Protocol):
    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> UserInfo:
        """The stored user; NotFound, with um's own text, if unknown."""


class Recall(Protocol):
    async def candidates(self, user: UserInfo, n: int, query: Query, timeout_s: float) -> Candidates: ...


class Items(Protocol):
    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, ItemInfo]:
        """The known ones of `skus`."""


class Rank(Protocol):
    async def scores(
        self, user: UserInfo, items: Sequence[Found], query: Query, timeout_s: float
    ) -> dict[str, float]: ...


@dataclass(frozen=True)
class Ports:
    """The stages' services."""

    users: Users
    recall: Recall
    items: Items
    rank: Rank


SHARE = 0.5
"""Of the time left, what a stage may take that others follow: should it hang, they still have their turn."""

PROFILE, POPULAR, SEEN, RECALL_ORDER = "request", "popular", "last seen", "recall order"


@dataclass(frozen=True)
class Caps:
    """The most a stage may take, seconds."""

    user_s: float
    recall_s: float
    item_s: float
    rank_s: float


async def recommend(
    query: Query, ports: Ports, shelf: Shelf, budget: Budget, caps: Caps, candidates: int
) -> Answer:
    """At most `query.n` items, best first, without duplicates, within `budget`.

    At least `candidates` are recalled, so that there is something to rank. Fewer than `query.n` are
    answered when some of them were removed or are out of stock. Raises NotFound only if a user id was
    given, is unknown, and the request does not describe the user; BadRequest as the services do.
    """
    trace = Trace()
    user = await _identify(query, ports.users, budget, caps, trace)
    # More than is asked for: ranking then has a choice, and what cm does not know any more or has
    # out of stock, which recall cannot tell, takes nobody's place.
    n = max(query.n, candidates)
    recalled = await _recall(query, user, n, ports.recall, shelf, budget, caps, trace)
    items = await _look_up(query, recalled, ports.items, shelf, budget, caps, trace)
    known = _in_stock(recalled, items)
    if not known and trace.degraded:  # nothing of it was ever seen: what sells has its records with it
        recalled = shelf.candidates(user, n, new_only=query.new_only)
        known = _in_stock(recalled, shelf.records(candidate.sku for candidate in recalled.found))
        trace.degrade("item", POPULAR)
    scores = await _rank(query, user, known, ports.rank, budget, caps, trace)
    return Answer(assemble(query.n, known, scores), recalled.bundle_version, trace.stages, trace.degraded)


async def _identify(query: Query, users: Users, budget: Budget, caps: Caps, trace: Trace) -> UserInfo:
    if not query.user_id:
        trace.skip("user")
        return with_totals(query.described or UserInfo())
    try:
        with trace.stage("user"):
            timeout_s = budget.stage("user", caps.user_s, SHARE)
            return with_session(await users.profile(query.user_id, query.log_id, timeout_s), query.described)
    except NotFound:
        if query.described is None:
            raise
        return with_totals(query.described)
    except BadRequest:
        raise
    except Fault:
        trace.degrade("user", PROFILE)
        user = UserInfo()
        user.CopyFrom(query.described or user)
        user.user_id = query.user_id  # which the user tower may know, whatever else is not known
        return with_totals(user)


async def _recall(
    query: Query,
    user: UserInfo,
    n: int,
    recall: Recall,
    shelf: Shelf,
    budget: Budget,
    caps: Caps,
    trace: Trace,
) -> Candidates:
    try:
        with trace.stage("recall"):
            timeout_s = budget.stage("recall", caps.recall_s, SHARE)
            recalled = await recall.candidates(user, n, query, timeout_s)
    except BadRequest:
        raise
    except Fault:
        trace.degrade("recall", POPULAR)
        return shelf.candidates(user, n, new_only=query.new_only)
    if recalled.missing:
        trace.degrade("recall", "without " + ", ".join(recalled.missing))
    return recalled


async def _look_up(
    query: Query,
    recalled: Candidates,
    items: Items,
    shelf: Shelf,
    budget: Budget,
    caps: Caps,
    trace: Trace,
) -> dict[str, ItemInfo]:
    skus = [candidate.sku for candidate in recalled.found]
    try:
        with trace.stage("item"):
            found = await items.lookup(skus, query.log_id, budget.stage("item", caps.item_s, SHARE))
    except Fault:
        trace.degrade("item", SEEN)
        return shelf.records(skus)
    shelf.remember(found.values())
    return found


def _in_stock(recalled: Candidates, items: dict[str, ItemInfo]) -> list[Found]:
    return [
        Found(item, one.sources)
        for one in recalled.found
        if (item := items.get(one.sku)) is not None and not item.out_of_stock
    ]


async def _rank(
    query: Query, user: UserInfo, known: list[Found], rank: Rank, budget: Budget, caps: Caps, trace: Trace
) -> dict[str, float] | None:
    """Scores by sku, or None, which keeps recall's order, when rank does not answer in time."""
    if not known:
        trace.skip("rank")
        return None
    try:
        with trace.stage("rank"):
            return await rank.scores(user, known, query, budget.stage("rank", caps.rank_s))
    except BadRequest:
        raise
    except Fault:
        trace.degrade("rank", RECALL_ORDER)
        return None

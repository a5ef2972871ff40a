"""The way of one answer through the stages, and what stands in for a stage that is away.

user    what the request itself says of the user
recall  what sells, held in memory since the start
item    records as they were last seen; if none was, what sells
rank    recall's order

So only a request that is wrong gets an error, and that is found before any stage is asked: what a service
refuses then is no fault of the caller's.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.gateway.domain import Answer, Candidates, Known, Query, Trace, assemble, with_session, with_totals
from ecrs.gateway.quality import Quality
from ecrs.gateway.shelf import Shelf
from ecrs.kit.budget import Budget
from ecrs.kit.errors import Fault, NotFound
from ecrs.kit.observe import EMPTY, RECOMMENDED, count_channels


class Users(Protocol):
    async def profile(self, user_id: str, log_id: str, timeout_s: float) -> UserInfo:
        """The stored user; NotFound, with um's own text, if unknown."""


class Recall(Protocol):
    async def candidates(self, user: UserInfo, n: int, query: Query, timeout_s: float) -> Candidates: ...


class Items(Protocol):
    async def lookup(self, skus: Sequence[str], log_id: str, timeout_s: float) -> dict[str, ItemInfo]:
        """The known ones of `skus`."""


class Rank(Protocol):
    async def scores(self, user: UserInfo, known: Known, query: Query, timeout_s: float) -> Sequence[float]:
        """Of each item, in their order."""


@dataclass(frozen=True)
class Ports:
    """The stages' services."""

    users: Users
    recall: Recall
    items: Items
    rank: Rank


SHARE = 0.5
"""Of the time left, what a stage may take that others follow: should it hang, they still have their turn."""

REQUEST, POPULAR, SEEN, RECALL_ORDER = "request", "popular", "last seen", "recall order"


@dataclass(frozen=True)
class Caps:
    """The most a stage may take, seconds."""

    user_s: float
    recall_s: float
    item_s: float
    rank_s: float


@dataclass(frozen=True)
class Gateway:
    """What answers are made with. At least `candidates` are recalled and ranked, so that there is something
    to choose from; under load a share of them."""

    ports: Ports
    shelf: Shelf
    caps: Caps
    candidates: int
    quality: Quality


async def recommend(query: Query, gateway: Gateway, budget: Budget) -> Answer:
    """At most `query.n` items, best first, without duplicates, within `budget`.

    Fewer than `query.n` are answered when some of them were removed or are out of stock. Raises NotFound
    only if a user id was given, is unknown, and the request does not describe the user.
    """
    begun = time.monotonic()
    answer = await _Way(query, gateway, budget).through()
    if not answer.degraded:  # else it may have waited for what is away, which fewer candidates do not mend
        gateway.quality.saw(time.monotonic() - begun)
    return answer


class _Way:
    """One query's way through the stages."""

    def __init__(self, query: Query, gateway: Gateway, budget: Budget) -> None:
        self._query, self._budget = query, budget
        self._ports, self._shelf, self._caps = gateway.ports, gateway.shelf, gateway.caps
        # More than is asked for: ranking then has a choice, and what cm does not know any more or has
        # out of stock, which recall cannot tell, takes nobody's place.
        self._n = max(query.n, gateway.quality.of(gateway.candidates))
        self._to_rank = gateway.quality.of(max(query.n, gateway.candidates))
        self._trace = Trace()

    async def through(self) -> Answer:
        user = await self._identify()
        recalled = await self._recall(user)
        known = await self._look_up(user, recalled)
        scores = await self._rank(user, known)
        items = assemble(self._query.n, known, scores)
        count_channels(RECOMMENDED, Counter(channel for item in items for channel, *_ in item.sources))
        if not items:
            EMPTY.inc()
        version, ranked = recalled.bundle_version, len(scores)
        return Answer(items, version, ranked, self._trace.stages, self._trace.degraded)

    async def _identify(self) -> UserInfo:
        query = self._query
        if not query.user_id:
            self._trace.skip("user")
            return with_totals(query.described or UserInfo())
        try:
            with self._trace.stage("user"):
                timeout_s = self._budget.stage("user", self._caps.user_s, SHARE)
                stored = await self._ports.users.profile(query.user_id, query.log_id, timeout_s)
                return with_session(stored, query.described)
        except NotFound:
            if query.described is None:
                raise
            return with_totals(query.described)
        except Fault:
            self._trace.degrade("user", REQUEST)
            user = UserInfo()
            user.CopyFrom(query.described or user)
            user.user_id = query.user_id  # which the user tower may know, whatever else is not known
            return with_totals(user)

    async def _recall(self, user: UserInfo) -> Candidates:
        try:
            with self._trace.stage("recall"):
                timeout_s = self._budget.stage("recall", self._caps.recall_s, SHARE)
                recalled = await self._ports.recall.candidates(user, self._n, self._query, timeout_s)
        except Fault:
            self._trace.degrade("recall", POPULAR)
            return self._popular(user)
        if recalled.missing:
            self._trace.degrade("recall", "without " + ", ".join(recalled.missing))
        return recalled

    async def _look_up(self, user: UserInfo, recalled: Candidates) -> Known:
        """The candidates with their records, without those that have none or are out of stock."""
        skus = recalled.skus
        try:
            with self._trace.stage("item"):
                timeout_s = self._budget.stage("item", self._caps.item_s, SHARE)
                items = await self._ports.items.lookup(skus, self._query.log_id, timeout_s)
        except Fault:
            known = _in_stock(recalled, self._shelf.records(skus))
            if known.items:
                self._trace.degrade("item", SEEN)
                return known
            self._trace.degrade("item", POPULAR)  # which has its records with it
            popular = self._popular(user)
            return _in_stock(popular, self._shelf.records(popular.skus))
        self._shelf.remember(items)
        return _in_stock(recalled, items)

    async def _rank(self, user: UserInfo, known: Known) -> Sequence[float]:
        """Scores of the first, as many as there is time for; none, and recall's order stays."""
        if not known.items:
            self._trace.skip("rank")
            return []
        try:
            with self._trace.stage("rank"):
                timeout_s = self._budget.stage("rank", self._caps.rank_s)
                first = known.first(self._to_rank)
                return await self._ports.rank.scores(user, first, self._query, timeout_s)
        except Fault:
            self._trace.degrade("rank", RECALL_ORDER)
            return []

    def _popular(self, user: UserInfo) -> Candidates:
        return self._shelf.candidates(user, self._n, new_only=self._query.new_only)


def _in_stock(recalled: Candidates, items: dict[str, ItemInfo]) -> Known:
    found = [items.get(sku) for sku in recalled.skus]
    rows = [row for row, item in enumerate(found) if item is not None and not item.out_of_stock]
    return Known([item for row in rows if (item := found[row])], recalled.sources.rows(rows))

"""Runs one request through the stages, and falls back when a stage fails.

stage    fallback
user     the request's own description of the user
recall   popular items, held in memory
item     the records as last read from cm; if there are too few, popular items as well
rank     retrieval order

So the only errors are those of an invalid request, and of an unknown user id without a description of the
user. Requests are validated before the first stage: a service that rejects one later counts as failed.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.sizes import MAX_ITEMS
from ecrs.gateway.answer import Answer, CandidateItems, Candidates, order_by_score
from ecrs.gateway.fallbacks import FallbackCatalogue
from ecrs.gateway.query import Query, with_aggregates, with_session
from ecrs.gateway.stages import Stages
from ecrs.gateway.trace import RequestTrace
from ecrs.metrics import EMPTY_ANSWERS, ITEMS_RECOMMENDED, count_channels
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import Fault, NotFound
from ecrs.rpc.load import QualityFactor

STAGE_FRACTION = 0.5
"""Largest share of the remaining deadline that a stage other than the last may use, so that a hanging stage
leaves time for those after it."""

SPARE_FRACTION = 0.1
"""Candidates beyond the requested number, as a share of it. Some are dropped, because recall does not know
which items are out of stock or were removed."""

FROM_REQUEST, POPULAR_ITEMS, LAST_READ, RETRIEVAL_ORDER = "request", "popular", "last read", "retrieval order"
"""Names of the fallbacks in answers and metrics."""


@dataclass(frozen=True)
class StageLimits:
    """Longest time for each stage, in seconds."""

    user_s: float
    recall_s: float
    item_s: float
    rank_s: float


@dataclass(frozen=True)
class Gateway:
    """What all requests share.

    `candidates`: number of candidates to retrieve and rank per request, or the number of requested items if
    that is larger. Under load, `ranking_depth` reduces it.
    """

    stages: Stages
    fallbacks: FallbackCatalogue
    limits: StageLimits
    candidates: int
    ranking_depth: QualityFactor


async def recommend(query: Query, gateway: Gateway, deadline: Deadline) -> Answer:
    """Answer `query` within `deadline`, degrading stage by stage rather than failing.

    Returns at most `query.n` items, best first, without duplicates; fewer if candidates turn out to be
    removed or out of stock. Raises NotFound only if a user id was given, is unknown, and the request does not
    describe the user.
    """
    pipeline = _Pipeline(query, gateway, deadline)
    user = await pipeline.load_user()
    candidates = await pipeline.retrieve_candidates(user)
    items = await pipeline.look_up_items(user, candidates)
    scores = await pipeline.rank_items(user, items)
    return pipeline.assemble_answer(candidates, items, scores)


class _Pipeline:
    """The stages of one request. Each returns the result of its service or of its fallback."""

    def __init__(self, query: Query, gateway: Gateway, deadline: Deadline) -> None:
        self._query, self._gateway, self._deadline = query, gateway, deadline
        self._stages, self._fallbacks, self._limits = gateway.stages, gateway.fallbacks, gateway.limits
        # If few items are requested, more candidates than that, from which the ranker selects.
        enough = min(query.n + ceil(SPARE_FRACTION * query.n), MAX_ITEMS)
        self._retrieved_count = max(enough, gateway.ranking_depth.share_of(gateway.candidates))
        self._ranked_count = gateway.ranking_depth.share_of(max(query.n, gateway.candidates))
        self._trace = RequestTrace()
        self._started = time.monotonic()

    async def load_user(self) -> UserInfo:
        """Return the stored user with the request's interactions, or the user that the request describes.

        Raises NotFound for an unknown id without a description.
        """
        query = self._query
        if not query.user_id:
            self._trace.skip("user")
            return with_aggregates(query.described or UserInfo())
        try:
            with self._trace.stage("user"):
                timeout_s = self._deadline.share("user", self._limits.user_s, STAGE_FRACTION)
                stored = await self._stages.users.profile(query.user_id, query.log_id, timeout_s)
                return with_session(stored, query.described)
        except NotFound:
            if query.described is None:
                raise
            return with_aggregates(query.described)
        except Fault:
            self._trace.degrade("user", FROM_REQUEST)
            user = UserInfo()
            user.CopyFrom(query.described or user)
            user.user_id = query.user_id  # the user tower may have been trained with this id
            return with_aggregates(user)

    async def retrieve_candidates(self, user: UserInfo) -> Candidates:
        """Return candidates from recall, or popular items."""
        try:
            with self._trace.stage("recall"):
                timeout_s = self._deadline.share("recall", self._limits.recall_s, STAGE_FRACTION)
                candidates = await self._stages.recall.candidates(
                    user, self._retrieved_count, self._query, timeout_s
                )
        except Fault:
            self._trace.degrade("recall", POPULAR_ITEMS)
            new_only = self._query.new_only
            return self._fallbacks.popular(user, self._retrieved_count, new_only=new_only)
        if candidates.missing:
            self._trace.degrade("recall", "without " + ", ".join(candidates.missing))
        return candidates

    async def look_up_items(self, user: UserInfo, candidates: Candidates) -> CandidateItems:
        """Return the candidates with their records, without unknown items and items out of stock."""
        try:
            with self._trace.stage("item"):
                timeout_s = self._deadline.share("item", self._limits.item_s, STAGE_FRACTION)
                records = await self._stages.items.lookup(candidates.skus, self._query.log_id, timeout_s)
        except Fault:
            return self._last_read_items(user, candidates)
        self._fallbacks.remember(records)
        return _in_stock(candidates, records)

    def _last_read_items(self, user: UserInfo, candidates: Candidates) -> CandidateItems:
        """Return the candidates with their records as last read; if there are too few, popular items too."""
        items = _in_stock(candidates, self._fallbacks.records(candidates.skus))
        if items.items:
            self._trace.degrade("item", LAST_READ)
        if len(items.items) >= self._query.n:
            return items
        popular = self._fallbacks.popular_items(
            user,
            self._retrieved_count - len(items.items),
            new_only=self._query.new_only,
            without=frozenset(candidates.skus),
        )
        if popular.items or not items.items:
            self._trace.degrade("item", POPULAR_ITEMS)
        return items.plus(popular)

    async def rank_items(self, user: UserInfo, items: CandidateItems) -> Sequence[float]:
        """Return the scores of the first candidates, down to the ranking depth; none if the stage failed."""
        if not items.items:
            self._trace.skip("rank")
            return []
        try:
            with self._trace.stage("rank"):
                timeout_s = self._deadline.share("rank", self._limits.rank_s)
                to_rank = items.first(self._ranked_count)
                return await self._stages.rank.scores(user, to_rank, self._query, timeout_s)
        except Fault:
            self._trace.degrade("rank", RETRIEVAL_ORDER)
            return []

    def assemble_answer(
        self, candidates: Candidates, items: CandidateItems, scores: Sequence[float]
    ) -> Answer:
        """Return the best items with the trace of the request, and count them by channel."""
        best = order_by_score(self._query.n, items, scores)
        count_channels(
            ITEMS_RECOMMENDED, Counter(channel for item in best for channel, *_ in item.provenance)
        )
        if not best:
            EMPTY_ANSWERS.inc()
        trace = self._trace
        if not trace.degraded:  # a failed stage is no sign of load, and ranking fewer items would not help
            self._gateway.ranking_depth.record(time.monotonic() - self._started)
        return Answer(best, candidates.bundle_version, len(scores), trace.stages, trace.degraded)


def _in_stock(candidates: Candidates, records: dict[str, ItemInfo]) -> CandidateItems:
    """Return the candidates that have a record and are in stock, in the same order."""
    items = [records.get(sku) for sku in candidates.skus]
    rows = [row for row, item in enumerate(items) if item is not None and not item.out_of_stock]
    return CandidateItems([item for row in rows if (item := items[row])], candidates.provenance.take(rows))

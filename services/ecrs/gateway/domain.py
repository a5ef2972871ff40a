"""A question, an answer, and how the answer came about. No I/O.

Users and records are the wire's messages: what the gateway hands from one service to the next it need
not take apart.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain import HISTORY_LENGTH, NEW_USER_IDS
from ecrs.kit import tracing
from ecrs.kit.errors import BadRequest
from ecrs.kit.observe import DEGRADED, STAGE_SECONDS, timed
from ecrs.sources import Source, Sources
from ecrs.totals import Totals
from ecrs.wire import check_now, check_user_id, from_user, to_user

DEFAULT_ITEMS = 100
MAX_ITEMS = 1000
MAX_USER_BYTES = 512 * 1024
"""More than twice what history and totals can take. It goes to recall and, with the candidates, to rank: what
gRPC refuses there would look like their failure, and a few of those open a breaker, for everybody."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """`skus`, best first, and what recall's channels say of each; `missing`, the channels that could not be
    asked."""

    skus: Sequence[str]
    sources: Sources
    bundle_version: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """Candidates with their records, in recall's order."""

    items: Sequence[ItemInfo]
    sources: Sources

    def first(self, n: int) -> "Known":
        if n >= len(self.items):
            return self
        return Known(self.items[:n], self.sources.rows(slice(n)))


@dataclass(frozen=True, slots=True)
class Query:
    """Who asks, for how many items.

    `user_id` is empty for a new user; `described` is what the request itself says of the user,
    None if nothing; `new_only` leaves out what the user bought before; `now` is Unix seconds, 0 for
    the time it is.
    """

    log_id: str
    user_id: str
    described: UserInfo | None
    n: int
    new_only: bool = False
    now: int = 0

    @classmethod
    def of(
        cls,
        log_id: str,
        user_id: str,
        described: UserInfo | None,
        request_num: int,
        *,
        new_only: bool = False,
        now: int = 0,
    ) -> "Query":
        """A valid query, or BadRequest saying what is wrong."""
        check_user_id(user_id)
        check_now(now)
        if described is not None:
            if (size := described.ByteSize()) > MAX_USER_BYTES:
                raise BadRequest(f"user_info: at most {MAX_USER_BYTES} bytes, got {size}")
            to_user(described)  # for what it says of one who cannot be
        user_id = "" if user_id in NEW_USER_IDS else user_id
        if not user_id and described is None:
            raise BadRequest("neither user_id nor user_info says for whom: give one of them")
        if request_num > MAX_ITEMS:
            raise BadRequest(f"request_num: at most {MAX_ITEMS}, got {request_num}")
        return cls(log_id, user_id, described, request_num or DEFAULT_ITEMS, new_only, now)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`sources`: the channels that proposed it."""

    item: ItemInfo
    score: float
    sources: Sequence[Source]


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    took_ms: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Degradation:
    """A stage that did not do its part, and what stood in for it."""

    stage: str
    fallback: str


@dataclass(frozen=True, slots=True)
class Answer:
    items: Sequence[Recommendation]  # best first, no item twice
    bundle_version: str
    ranked: int  # so many candidates
    stages: Sequence[Stage]
    degraded: Sequence[Degradation] = ()


@dataclass
class Trace:
    """The stages of one answer, timed, and what stood in for which."""

    stages: list[Stage] = field(default_factory=list)
    degraded: list[Degradation] = field(default_factory=list)

    def degrade(self, stage: str, fallback: str) -> None:
        self.degraded.append(Degradation(stage, fallback))
        DEGRADED.labels(stage, fallback).inc()
        tracing.event("degraded", stage=stage, fallback=fallback)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        try:
            with timed(STAGE_SECONDS, name) as timing:
                yield
        finally:
            self.stages.append(Stage(name, timing.took_s * 1000, timing.outcome))

    def skip(self, name: str) -> None:
        self.stages.append(Stage(name, 0.0, "skipped"))


def with_session(stored: UserInfo, described: UserInfo | None) -> UserInfo:
    """The stored user, the interactions that the request brought placed before the stored ones."""
    if described is None or not described.history:
        return stored
    user, session = to_user(stored), to_user(described).history
    history = (session + user.history)[:HISTORY_LENGTH]
    return from_user(replace(user, history=history, totals=user.totals.plus(session)))


def with_totals(described: UserInfo) -> UserInfo:
    """A user who is not stored: totals are those of the session, unless the request brought some."""
    if described.totals.sku_ids or not described.history:
        return described
    user = to_user(described)
    return from_user(replace(user, totals=Totals().plus(user.history)))


def assemble(n: int, known: Known, scores: Sequence[float]) -> list[Recommendation]:
    """The `n` best of recall's known items: the first of them, which have scores, by these, then the others
    in recall's order."""
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    order = [*order, *range(len(scores), len(known.items))][:n]
    proposed = known.sources.rows(order).proposed()
    return [
        Recommendation(known.items[row], scores[row] if row < len(scores) else 0.0, sources)
        for row, sources in zip(order, proposed, strict=True)
    ]

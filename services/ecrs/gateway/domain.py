"""A question, an answer, and how the answer came about. No I/O."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ecrs.domain import HISTORY_LENGTH, NEW_USER_IDS, Item, User
from ecrs.kit.errors import BadRequest, Fault
from ecrs.kit.observe import DEGRADED, STAGE_SECONDS
from ecrs.totals import Totals

DEFAULT_ITEMS = 100
MAX_ITEMS = 1000


@dataclass(frozen=True, slots=True)
class Source:
    """A recall channel's word on an item: its place in it, 0 where it only has a score for it."""

    channel: str
    position: int
    score: float


@dataclass(frozen=True, slots=True)
class Candidate:
    sku: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate with its record."""

    item: Item
    sources: tuple[Source, ...]

    @property
    def proposed(self) -> tuple[Source, ...]:
        """The channels that found it, without those that only have a score for it."""
        return tuple(source for source in self.sources if source.position)


@dataclass(frozen=True, slots=True)
class Candidates:
    """`found`, best first; `missing`, the channels that could not be asked."""

    found: Sequence[Candidate]
    bundle_version: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """Who asks, for how many items.

    `user_id` is empty for a new user; `described` is what the request itself says of the user,
    None if nothing; `new_only` leaves out what the user bought before; `now` is Unix seconds, 0 for
    the time it is.
    """

    log_id: str
    user_id: str
    described: User | None
    n: int
    new_only: bool = False
    now: int = 0

    @classmethod
    def of(
        cls,
        log_id: str,
        user_id: str,
        described: User | None,
        request_num: int,
        *,
        new_only: bool = False,
        now: int = 0,
    ) -> "Query":
        """A valid query, or BadRequest saying what is wrong."""
        user_id = "" if user_id in NEW_USER_IDS else user_id
        if not user_id and described is None:
            raise BadRequest("neither user_id nor user_info says for whom: give one of them")
        if request_num > MAX_ITEMS:
            raise BadRequest(f"request_num: at most {MAX_ITEMS}, got {request_num}")
        return cls(log_id, user_id, described, request_num or DEFAULT_ITEMS, new_only, now)


@dataclass(frozen=True, slots=True)
class Recommendation:
    item: Item
    score: float
    sources: tuple[Source, ...]


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

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        outcome = "error"  # unless it ends in a way that has a name
        try:
            yield
            outcome = "ok"
        except Fault as fault:
            outcome = fault.outcome
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            took = time.perf_counter() - started
            self.stages.append(Stage(name, took * 1000, outcome))
            STAGE_SECONDS.labels(name, outcome).observe(took)

    def skip(self, name: str) -> None:
        self.stages.append(Stage(name, 0.0, "skipped"))


def with_session(stored: User, described: User | None) -> User:
    """The stored user, the interactions that the request brought placed before the stored ones."""
    if described is None or not described.history:
        return stored
    history = (described.history + stored.history)[:HISTORY_LENGTH]
    return replace(stored, history=history, totals=stored.totals.plus(described.history))


def with_totals(described: User) -> User:
    """A user who is not stored: totals are those of the session, unless the request brought some."""
    return described if described.totals else replace(described, totals=Totals().plus(described.history))


def assemble(n: int, known: Sequence[Found], scores: Mapping[str, float] | None) -> list[Recommendation]:
    """The `n` best of recall's known items: by score, or in recall's order where there are no scores."""
    recommended = [
        Recommendation(one.item, scores[one.item.sku] if scores else 0.0, one.proposed) for one in known
    ]
    if scores is not None:
        recommended.sort(key=lambda recommendation: -recommendation.score)
    return recommended[:n]

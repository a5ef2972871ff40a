"""The gateway's answer, and the candidates that it is built from. No I/O.

Items and users are protobuf messages here, because the gateway passes them from service to service without
converting them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.domain.provenance import Provenance, ProvenanceTable


@dataclass(frozen=True, slots=True)
class Candidates:
    """Retrieved candidates, best first.

    `provenance`: the channels that found each candidate. `missing`: channels that failed and contributed
    nothing.
    """

    skus: Sequence[str]
    provenance: ProvenanceTable
    bundle_version: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidateItems:
    """Candidates with their item records, in retrieval order."""

    items: Sequence[ItemInfo]
    provenance: ProvenanceTable

    def first(self, n: int) -> "CandidateItems":
        """Return the first `n` candidates."""
        if n >= len(self.items):
            return self
        return CandidateItems(self.items[:n], self.provenance.take(slice(n)))

    def plus(self, other: "CandidateItems") -> "CandidateItems":
        """Return these candidates followed by `other`."""
        return CandidateItems([*self.items, *other.items], self.provenance.plus(other.provenance))


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One item of an answer: its rank score, 0.0 if it was not ranked, and the channels that found it."""

    item: ItemInfo
    score: float
    provenance: Sequence[Provenance]


@dataclass(frozen=True, slots=True)
class StageReport:
    """Duration and outcome of one stage; `outcome` is "ok", "skipped" or the name of a fault."""

    name: str
    took_ms: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Degradation:
    """A failed stage and the fallback that replaced it."""

    stage: str
    fallback: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Recommendations, best first, without duplicates; `ranked` is the number of ranked candidates."""

    items: Sequence[Recommendation]
    bundle_version: str
    ranked: int
    stages: Sequence[StageReport]
    degraded: Sequence[Degradation] = ()


def order_by_score(n: int, candidates: CandidateItems, scores: Sequence[float]) -> list[Recommendation]:
    """Return the best `n` candidates.

    `scores` are those of the first `len(scores)` candidates. These come first, in descending order of score;
    the others follow in retrieval order.
    """
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    order = [*order, *range(len(scores), len(candidates.items))][:n]
    entries = candidates.provenance.take(order).entries()
    return [
        Recommendation(candidates.items[row], scores[row] if row < len(scores) else 0.0, provenance)
        for row, provenance in zip(order, entries, strict=True)
    ]

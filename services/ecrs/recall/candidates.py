"""Candidates, and what may be asked for."""

from dataclasses import dataclass

import numpy as np

from ecrs.domain.provenance import ProvenanceTable
from ecrs.domain.sizes import DEFAULT_ITEMS, MAX_ITEMS
from ecrs.features.ranking import CHANNELS
from ecrs.recall.blending import BlendedCandidates
from ecrs.rpc.errors import BadRequest, quoted

VECTOR = "vector"
COLD_START = "cold_start"
"""The channel of the products that came after the bundle: ranking, which learned from the bundle's past,
knows nothing of it."""
ALL_CHANNELS = (*CHANNELS, COLD_START)


@dataclass(frozen=True, slots=True, eq=False)
class RetrievedCandidates:
    """Best first: `skus`; `score`, float (N,), ascending where they are merged; what the channels say of
    each. `missing`, the channels that they are without."""

    skus: list[str]
    score: np.ndarray
    provenance: ProvenanceTable
    missing: tuple[str, ...] = ()

    @classmethod
    def alone(cls, channel: str, skus: list[str], score: np.ndarray) -> "RetrievedCandidates":
        """Of one channel, in its order."""
        positions = np.arange(1, len(skus) + 1)[:, None]
        return cls(skus, score, ProvenanceTable((channel,), positions, score[:, None]))

    @classmethod
    def merged(
        cls, merged: BlendedCandidates, skus: list[str], missing: tuple[str, ...] = ()
    ) -> "RetrievedCandidates":
        """Of all channels; `skus`, the proposals' own. A score is the chance of not being taken."""
        positions = np.nan_to_num(merged.positions).astype(np.int64)
        return cls(skus, 1 - merged.precision, ProvenanceTable(CHANNELS, positions, merged.scores), missing)

    def __len__(self) -> int:
        return len(self.skus)

    def first(self, n: int) -> "RetrievedCandidates":
        return RetrievedCandidates(
            self.skus[:n], self.score[:n], self.provenance.take(slice(n)), self.missing
        )


def candidate_count(request_num: int) -> int:
    """How many candidates a request means; BadRequest above the limit."""
    if request_num > MAX_ITEMS:
        raise BadRequest(f"request_num: at most {MAX_ITEMS}, got {request_num}")
    return request_num or DEFAULT_ITEMS


def requested_channel(recall_type: str) -> str:
    """The channel a request means, empty for all of them merged; BadRequest names the ones there are."""
    if recall_type and recall_type not in ALL_CHANNELS:
        raise BadRequest(f"recall_type: {quoted(recall_type)} is none of {', '.join(sorted(ALL_CHANNELS))}")
    return recall_type

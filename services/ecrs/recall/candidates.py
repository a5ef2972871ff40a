"""Retrieved candidates, and the validation of what a request may ask for."""

from dataclasses import dataclass

import numpy as np

from ecrs.domain.provenance import ProvenanceTable
from ecrs.domain.sizes import DEFAULT_ITEMS, MAX_ITEMS
from ecrs.features.ranking import CHANNELS
from ecrs.recall.blending import BlendedCandidates
from ecrs.rpc.errors import BadRequest, quoted

VECTOR = "vector"
COLD_START = "cold_start"
"""The channel of items that were added after the bundle was built. It is not in CHANNELS, because the ranker
was trained on data from before and has no features for it."""
ALL_CHANNELS = (*CHANNELS, COLD_START)


@dataclass(frozen=True, slots=True, eq=False)
class RetrievedCandidates:
    """Candidates, best first.

    `score`: float, shape (N,), ascending for blended candidates. `provenance`: position and score of each
    candidate in each channel. `missing`: channels that failed and contributed nothing.
    """

    skus: list[str]
    score: np.ndarray
    provenance: ProvenanceTable
    missing: tuple[str, ...] = ()

    @classmethod
    def alone(cls, channel: str, skus: list[str], score: np.ndarray) -> "RetrievedCandidates":
        """Build the candidates of a single channel, in its order and with its scores."""
        positions = np.arange(1, len(skus) + 1)[:, None]
        return cls(skus, score, ProvenanceTable((channel,), positions, score[:, None]))

    @classmethod
    def merged(
        cls, merged: BlendedCandidates, skus: list[str], missing: tuple[str, ...] = ()
    ) -> "RetrievedCandidates":
        """Build the candidates from blended ones, whose skus are `skus`.

        The score is 1 - precision, the estimated probability that the user does not buy the item.
        """
        positions = np.nan_to_num(merged.positions).astype(np.int64)
        return cls(skus, 1 - merged.precision, ProvenanceTable(CHANNELS, positions, merged.scores), missing)

    def __len__(self) -> int:
        return len(self.skus)

    def first(self, n: int) -> "RetrievedCandidates":
        """Return the first `n` candidates."""
        return RetrievedCandidates(
            self.skus[:n], self.score[:n], self.provenance.take(slice(n)), self.missing
        )


def candidate_count(request_num: int) -> int:
    """Return the number of candidates to retrieve: `request_num`, or DEFAULT_ITEMS if it is 0.

    Raises BadRequest above MAX_ITEMS.
    """
    if request_num > MAX_ITEMS:
        raise BadRequest(f"request_num: at most {MAX_ITEMS}, got {request_num}")
    return request_num or DEFAULT_ITEMS


def requested_channel(recall_type: str) -> str:
    """Return the requested channel; empty for all channels, blended.

    Raises BadRequest naming the valid channels.
    """
    if recall_type and recall_type not in ALL_CHANNELS:
        valid = ", ".join(sorted(ALL_CHANNELS))
        raise BadRequest(f"recall_type: {quoted(recall_type)} is not one of {valid}")
    return recall_type

"""Candidates, and what may be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from ecrs.kit.errors import BadRequest
from ecrs.ranking_features import CHANNELS

DEFAULT_CANDIDATES = 100
MAX_CANDIDATES = 1000
VECTOR = "vector"
NEW = "new"
"""The channel of the products that came after the bundle: ranking, which learned from the bundle's past,
knows nothing of it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A channel's word on an item: `position` 1 is its best, 0 says that it only has a score for it."""

    channel: str
    position: int
    score: float


@dataclass(frozen=True, slots=True)
class Candidate:
    sku: str
    score: float
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """`candidates`, best first; `missing`, the channels that they are without."""

    candidates: Sequence[Candidate]
    missing: tuple[str, ...] = ()


def wanted(request_num: int) -> int:
    """How many candidates a request means; BadRequest above the limit."""
    if request_num > MAX_CANDIDATES:
        raise BadRequest(f"request_num: at most {MAX_CANDIDATES}, got {request_num}")
    return request_num or DEFAULT_CANDIDATES


def channel_of(recall_type: str) -> str:
    """The channel a request means, empty for all of them merged; BadRequest names the ones there are."""
    channels = (*CHANNELS, NEW)
    if recall_type and recall_type not in channels:
        raise BadRequest(f"recall_type: {recall_type!r} is none of {', '.join(sorted(channels))}")
    return recall_type

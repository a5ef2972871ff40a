"""Candidates, and what may be asked for."""

from dataclasses import dataclass

from ecrs.kit.errors import BadRequest

DEFAULT_CANDIDATES = 100
MAX_CANDIDATES = 1000

VECTOR = "vector"
"""The channel of the two-tower: items whose vectors are nearest to the user's."""

CHANNELS = frozenset({VECTOR})


@dataclass(frozen=True, slots=True)
class Candidate:
    sku: str
    score: float
    channel: str
    position: int  # 1 is the channel's best


def wanted(request_num: int) -> int:
    """How many candidates a request means; BadRequest above the limit."""
    if request_num > MAX_CANDIDATES:
        raise BadRequest(f"request_num: at most {MAX_CANDIDATES}, got {request_num}")
    return request_num or DEFAULT_CANDIDATES


def channel_of(recall_type: str) -> str:
    """The channel a request means; BadRequest names the ones there are."""
    channel = recall_type or VECTOR
    if channel not in CHANNELS:
        raise BadRequest(f"recall_type: {recall_type!r} is none of {', '.join(sorted(CHANNELS))}")
    return channel

"""What may be asked of rank."""

from dataclasses import dataclass

from ecrs.domain import Item
from ecrs.kit.errors import BadRequest

MAX_ITEMS = 1000


@dataclass(frozen=True, slots=True)
class Scored:
    """A product to score, and what recall's channels say of it: channel, position, score."""

    item: Item
    sources: tuple[tuple[str, int, float], ...] = ()


def check_batch(size: int) -> None:
    """BadRequest unless a request names 1 to MAX_ITEMS products."""
    if not 1 <= size <= MAX_ITEMS:
        raise BadRequest(f"item_infos: expected 1 to {MAX_ITEMS} products, got {size}")

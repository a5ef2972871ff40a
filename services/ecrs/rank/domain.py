"""What may be asked of rank."""

from ecrs.kit.errors import BadRequest

MAX_ITEMS = 1000


def check_batch(size: int) -> None:
    """BadRequest unless a request names 1 to MAX_ITEMS products."""
    if not 1 <= size <= MAX_ITEMS:
        raise BadRequest(f"item_infos: expected 1 to {MAX_ITEMS} products, got {size}")

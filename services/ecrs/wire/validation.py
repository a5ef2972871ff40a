"""Checks of request fields that several services share. Each raises BadRequest naming the field."""

from collections.abc import Sequence

from ecrs.domain.entities import MAX_SKU_BYTES, MAX_TIMESTAMP, has_control, is_long, sku_fault
from ecrs.rpc.errors import BadRequest, quoted

MAX_BATCH = 1000
"""Largest number of items that one call may add, remove or mark as in or out of stock."""

MAX_USER_ID_CHARS = 256
"""Longest user id that is looked up."""


def check_timestamp(field: str, ts: int) -> None:
    """Check that `ts` is in Unix seconds, from 0 to MAX_TIMESTAMP."""
    if not 0 <= ts <= MAX_TIMESTAMP:
        raise BadRequest(f"{field}: expected Unix seconds, 0 to {MAX_TIMESTAMP}, got {ts}")


def check_user_id(user_id: str) -> None:
    """Check that `user_id` is short enough to look up and to quote in a reply."""
    if len(user_id) > MAX_USER_ID_CHARS:
        raise BadRequest(f"user_id: at most {MAX_USER_ID_CHARS} characters, got {len(user_id)}")


def check_skus(field: str, skus: Sequence[str]) -> None:
    """Check that every sku is short enough to look up and to quote in a reply."""
    if max(map(len, skus)) > MAX_SKU_BYTES:
        index = next(index for index, sku in enumerate(skus) if len(sku) > MAX_SKU_BYTES)
        raise BadRequest(f"{field}[{index}]: at most {MAX_SKU_BYTES} characters, got {len(skus[index])}")


def check_batch(field: str, skus: Sequence[str]) -> None:
    """Check that there are 1 to MAX_BATCH skus, without duplicates, that files and stores can hold."""
    if not 1 <= len(skus) <= MAX_BATCH:
        raise BadRequest(f"{field}: expected 1 to {MAX_BATCH} products, got {len(skus)}")
    seen: set[str] = set()
    for index, sku in enumerate(skus):
        if fault := "twice in one call" if sku in seen else sku_fault(sku):
            raise BadRequest(f"{field}[{index}]: sku {quoted(sku)}: {fault}")
        seen.add(sku)


def first_duplicate(skus: Sequence[str]) -> str | None:
    """Return the first sku that appeared before in the sequence; None if all differ."""
    seen: set[str] = set()
    for sku in skus:
        if sku in seen:
            return sku
        seen.add(sku)
    return None


def check_item_value(field: str, value: str) -> None:
    """Check that a brand, shop or category is short enough and free of control characters."""
    if is_long(value):
        raise BadRequest(f"{field} is longer than {MAX_SKU_BYTES} bytes")
    if has_control(value):
        raise BadRequest(f"{field} holds a control character")

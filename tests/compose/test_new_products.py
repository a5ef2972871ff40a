"""New items in containers: Redis, the item tower's server and Milvus accept them and keep them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.conftest import SERVICES, Stack, wait_until

SKU = "brand-new"


@pytest.fixture
def similar_item(stack: Stack, bundle_dir: Path, stored: dict[str, Any]) -> Iterator[list[str]]:
    """Brand, shop and category of the stored user's most recent item; removes the new item afterwards."""
    with (bundle_dir / "histories.dat").open() as lines:
        history = next(line for line in lines if line.startswith(f"{stored['user']}:"))
    sku = re.split("[:,]", history)[1]
    with (bundle_dir / "products.dat").open() as lines:
        product = next(line for line in lines if line.startswith(f"{sku}:"))
    yield product.strip().split(":")[1:]
    item(stack, "remove", SKU)


def item(stack: Stack, *arguments: str) -> str:
    """Run `ecrs item` in the client's container and return what it prints."""
    return stack.compose("exec", "-T", "client", "ecrs", "item", *arguments, check=False)


def test_a_new_item_is_recalled_and_survives_restarts(
    stack: Stack, stored: dict[str, Any], similar_item: list[str]
) -> None:
    def recalled() -> bool:
        return f'nid: "{SKU}"' in stack.client("recall", stored["user"])

    assert not recalled()
    assert item(stack, "add", SKU, *similar_item) == "1 product added\n"
    wait_until("the new item among the candidates", recalled, limit_s=5)
    assert f'sku_id: "{SKU}"' in stack.client("cm", SKU)
    stack.compose("restart", "--timeout", "30", "redis", "milvus", "recall", "cm", limit_s=180)
    wait_until("every container healthy", lambda: all(map(stack.is_healthy, SERVICES)), 90)
    wait_until("the new item after the restart", recalled, 90)
    for seed in ("redis", "milvus"):
        assert "is already loaded" in stack.compose(
            "run", "--rm", "-T", "--no-deps", f"seed-{seed}", limit_s=120
        )
    assert recalled()
    assert item(stack, "stock", SKU, "--out") == "1 product marked out of stock\n"
    assert "out_of_stock: true" in stack.client("cm", SKU, "--full")
    assert f'sku_id: "{SKU}"' not in stack.client("as", stored["user"])
    assert item(stack, "remove", SKU) == "1 product removed\n"
    wait_until("the removed item gone", lambda: not recalled(), limit_s=5)


def test_without_the_item_tower_items_are_served_but_none_can_be_added(
    stack: Stack, stored: dict[str, Any], similar_item: list[str]
) -> None:
    stack.compose("stop", "--timeout", "30", "serving-item-tower")
    try:
        assert item(stack, "add", SKU, *similar_item) == ""
        assert stack.is_healthy("cm")
        assert "code: 200" in stack.client("as", stored["user"])
        assert "code: 500" in stack.client("cm", SKU)
    finally:
        stack.compose("start", "serving-item-tower")
        wait_until("the item tower", lambda: stack.is_healthy("serving-item-tower"), 90)

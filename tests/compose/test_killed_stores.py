"""A store that is killed with SIGKILL loses neither seeded data nor later changes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymilvus
import pytest
import redis

from ecrs.storage.milvus_vectors import ALIAS
from tests.compose.conftest import PROJECT, Stack, run, wait_until
from tests.store_digest import BATCH, digest, records

SKU = "just-added"
RECOVERY_LIMIT_S = 90.0


def products(stack: Stack) -> Iterator[tuple[str, bytes]]:
    password = stack.secret("redis_admin_password")
    options = {"username": "admin", "password": password, "socket_timeout": 10}
    with redis.Redis(stack.address("redis"), **options) as client:
        yield from records(client)


def vectors(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Yield every row of the live collection."""
    token = "root:" + stack.secret("milvus_password")
    client = pymilvus.MilvusClient(f"http://{stack.address('milvus')}:19530", token=token, timeout=10)
    try:
        rows = client.query_iterator(ALIAS, batch_size=BATCH, output_fields=["sku", "vector"])
        while batch := rows.next():
            for row in batch:
                yield row["sku"], str(row["vector"]).encode()
        rows.close()
    finally:
        client.close()


@pytest.fixture
def added_item(stack: Stack, bundle_dir: Path, stored: dict[str, Any]) -> Iterator[None]:
    """Add an item that resembles an existing one; remove it afterwards."""
    with (bundle_dir / "products.dat").open() as lines:
        similar_item = next(lines).strip().split(":")[1:]
    assert item(stack, "add", SKU, *similar_item) == "1 product added\n"
    yield
    item(stack, "remove", SKU)


def item(stack: Stack, *arguments: str) -> str:
    return stack.compose("exec", "-T", "client", "ecrs", "item", *arguments, check=False)


@pytest.mark.parametrize(("store", "rows"), [("redis", products), ("milvus", vectors)])
def test_a_killed_store_loses_no_data(
    stack: Stack, bundle_dir: Path, added_item: None, store: str, rows: Any
) -> None:
    seeded = sum(1 for _ in (bundle_dir / "products.dat").open())
    wait_until("the added item", lambda: any(key.startswith(SKU) for key, _ in rows(stack)), 10)
    count, before = digest(rows(stack))
    assert count > seeded
    run("docker", "kill", f"{PROJECT}-{store}-1")
    run("docker", "start", f"{PROJECT}-{store}-1")
    stack.wait_until_healthy(RECOVERY_LIMIT_S)
    wait_until("the store can be read", lambda: can_be_read(rows, stack), RECOVERY_LIMIT_S)
    assert digest(rows(stack)) == (count, before)


def can_be_read(rows: Any, stack: Stack) -> bool:
    """True if the store returns rows; Milvus is healthy before it has loaded its collections."""
    try:
        return next(iter(rows(stack)), None) is not None
    except pymilvus.MilvusException:
        return False

"""kill -9 of the stores: of what was seeded, and put since, nothing is lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymilvus
import pytest
import redis

from ecrs.storage.milvus_vectors import ALIAS
from tests.compose.conftest import PROJECT, Stack, run, wait_until
from tests.store_digest import BATCH, digest, records

SKU = "put-just-now"
RECOVERY_LIMIT_S = 90.0


def products(stack: Stack) -> Iterator[tuple[str, bytes]]:
    password = stack.secret("redis_password")
    with redis.Redis(stack.address("redis"), password=password, socket_timeout=10) as client:
        yield from records(client)


def vectors(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Of the live collection, all."""
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
def put(stack: Stack, bundle_dir: Path, known: dict[str, Any]) -> Iterator[None]:
    """A product put just now, like one the shop has; gone afterwards."""
    with (bundle_dir / "products.dat").open() as lines:
        like = next(lines).strip().split(":")[1:]
    assert item(stack, "add", SKU, *like) == "1 product added\n"
    yield
    item(stack, "remove", SKU)


def item(stack: Stack, *arguments: str) -> str:
    return stack.compose("exec", "-T", "client", "ecrs", "item", *arguments, check=False)


@pytest.mark.parametrize(("store", "held"), [("redis", products), ("milvus", vectors)])
def test_a_killed_store_has_lost_nothing(
    stack: Stack, bundle_dir: Path, put: None, store: str, held: Any
) -> None:
    seeded = sum(1 for _ in (bundle_dir / "products.dat").open())
    wait_until("what was put", lambda: any(key.startswith(SKU) for key, _ in held(stack)), 10)
    count, before = digest(held(stack))
    assert count > seeded
    run("docker", "kill", f"{PROJECT}-{store}-1")
    run("docker", "start", f"{PROJECT}-{store}-1")
    stack.wait_until_healthy(RECOVERY_LIMIT_S)
    wait_until("the store reads", lambda: reads(held, stack), RECOVERY_LIMIT_S)
    assert digest(held(stack)) == (count, before)


def reads(held: Any, stack: Stack) -> bool:
    """Milvus is healthy before it has loaded what it holds."""
    try:
        return next(iter(held(stack)), None) is not None
    except pymilvus.MilvusException:
        return False

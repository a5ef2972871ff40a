"""Attacks on what the platform stores: records that others wrote, an emptied store, a full disk."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.storage.records import aggregates_key, history_key, item_key, user_key
from tests.attack.attack import ANY, attack
from tests.attack.shop import CALL_LIMIT_S, HOLD_S, Shop, at_rate, connected
from tests.small_disk import fill

CACHED_S = 5.0
"""How long cm keeps an item record by default (ECRS_ITEM_AGE_S)."""

FIELDS = ("age", "sex", "city_level", "province", "city", "country")
PROFILE = json.dumps({"user_id": "bad"} | dict.fromkeys(FIELDS, "5.0")).encode()
BAD_PROFILES = (
    *(b"", b"null", b"[]", b"not JSON", b"[" * 100_000, b"\xff" * 1000),
    PROFILE.replace(b'"5.0"', b"5.0"),
)
BAD_HISTORIES = (
    b'[["1",1e23,2]]',
    b"[[1,1700000000,2]]",
    b'[["1",1700000000,99]]',
    b'[["1",-1,2]]',
    b'{"1":2}',
    json.dumps([["1", 1_700_000_000, 2]] * 50_000).encode(),
    json.dumps([["x" * 100_000, 1_700_000_000, 2]] * 20).encode(),
)
BAD_AGGREGATES = (b"{}", b'{"sku_ids":["1"]}', b'{"sku_ids":[1],"orders":["NaN"]}', b"not JSON")
BAD_ITEMS = (
    b"not JSON",
    b'{"sku_id":"1","brand":1,"shopid":2,"cate":3}',
    b'{"sku_id":"another","brand":"1","shopid":"2","cate":"3"}',
    json.dumps({"sku_id": "1", "brand": "x" * 2_000, "shopid": "2", "cate": "3"}).encode(),
    json.dumps({"sku_id": "1", "brand": "1", "shopid": "2", "cate": "\0" * 500_000}).encode(),
)


@asynccontextmanager
async def written(shop: Shop, records: Mapping[str, bytes]) -> AsyncIterator[None]:
    """Write records into the store by a plain client, and put back what was there when the context ends."""
    async with shop.store() as redis:
        before = dict(zip(records, await redis.mget(list(records)), strict=True))
        try:
            await redis.mset(dict(records))
            yield
        finally:
            await redis.delete(*records)
            for key, value in before.items():
                if value is not None:
                    await redis.set(key, value)


@attack()
async def bad_users_in_the_store(shop: Shop) -> None:
    """Each bad user is asked for twenty times; every answer has products."""
    version, users = shop.bundle.version, itertools.count()
    records = {user_key(f"bad-{next(users)}"): profile for profile in BAD_PROFILES}
    for key, values in ((history_key, BAD_HISTORIES), (aggregates_key, BAD_AGGREGATES)):
        for value in values:
            user = f"bad-{next(users)}"
            records |= {user_key(user): PROFILE, key(user, version): value}
    count = next(users)
    async with written(shop, records), connected("gateway") as channel:
        stub = ASServiceStub(channel)
        ask = lambda number: stub.as_call(ASRequest(user_id=f"bad-{number % count}"), timeout=CALL_LIMIT_S)  # noqa: E731
        replies = await at_rate(20 * count / HOLD_S / 2, ask, hold_s=2 * HOLD_S)
    failed = {str(reply.error) for reply in replies if reply.error.code != 200}
    assert not failed, f"{len(failed)} answers to bad users failed: {sorted(failed)[:3]}"


@attack()
async def bad_popular_products_in_the_store(shop: Shop) -> None:
    """The records of the most popular products are replaced, for longer than cm keeps the right ones."""
    keys = [item_key(item.sku) for item in shop.products[: len(BAD_ITEMS)]]
    async with written(shop, dict(zip(keys, BAD_ITEMS, strict=True))):
        await asyncio.sleep(CACHED_S + HOLD_S)


@attack(degraded=ANY)
async def an_emptied_store(shop: Shop) -> None:
    async with shop.store() as redis:
        await redis.flushall()
    await asyncio.sleep(HOLD_S)
    await asyncio.to_thread(shop.seed)


@asynccontextmanager
async def full_log_disk(shop: Shop) -> AsyncIterator[None]:
    assert shop.log_disk is not None
    filler = fill(shop.log_disk, leave=0)
    try:
        yield
    finally:
        filler.unlink()


@attack(needs_disk=True)
async def a_full_log_disk(shop: Shop) -> None:
    async with full_log_disk(shop):
        await asyncio.sleep(HOLD_S)


@attack(needs_disk=True, degraded=ANY, ends=frozenset({"rank"}))
async def a_part_that_dies_while_the_log_disk_is_full(shop: Shop) -> None:
    async with full_log_disk(shop):
        os.kill(shop.pids["rank"], signal.SIGKILL)
        await asyncio.sleep(HOLD_S)
    await asyncio.sleep(HOLD_S)  # the supervisor's own pause between two attempts to start it

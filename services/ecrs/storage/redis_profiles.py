"""The profile store in Redis or Valkey."""

import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ecrs.domain.entities import Item, User
from ecrs.rpc.deadlines import bounded
from ecrs.rpc.errors import MalformedData
from ecrs.settings import RedisSettings
from ecrs.storage.records import (
    BUNDLE_KEY,
    ITEM_CHANGES_KEY,
    OUT_OF_STOCK_KEY,
    aggregates_key,
    dump_item,
    history_key,
    item_key,
    load_bundle,
    load_item,
    load_user,
    user_key,
)

log = structlog.get_logger()


class RedisProfileStore:
    """An `ItemStore` in Redis. The methods raise what the protocol says."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._version = ""

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        """Read a user in one MGET; read again if another bundle has gone live since the last read."""
        deadline = time.monotonic() + timeout_s
        while True:
            version = self._version
            keys = [
                BUNDLE_KEY,
                user_key(user_id),
                history_key(user_id, version),
                aggregates_key(user_id, version),
            ]
            bundle, profile, history, aggregates = await self._mget(keys, deadline - time.monotonic())
            if self._remember_version(bundle) == version:
                return None if profile is None else load_user(user_id, profile, history, aggregates)
            # Another bundle went live: these keys belong to the former one and may be partly removed. Retry.

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        """Read items and whether they are in stock, in one round trip."""
        if not skus:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.mget([item_key(sku) for sku in skus])
        pipeline.smismember(OUT_OF_STOCK_KEY, list(skus))
        records, out_of_stock = await _reply(pipeline.execute(), timeout_s)
        return [
            None if raw is None else _item(sku, raw, out_of_stock=bool(out))
            for sku, raw, out in zip(skus, records, out_of_stock, strict=True)
        ]

    async def put(self, items: Sequence[Item], timeout_s: float) -> None:
        """Write items in one transaction and record the time of the change."""
        pipeline = self._redis.pipeline()
        for item in items:
            pipeline.set(item_key(item.sku), dump_item(item))
            mark = pipeline.sadd if item.out_of_stock else pipeline.srem
            mark(OUT_OF_STOCK_KEY, item.sku)
        self._record_changes(pipeline, [item.sku for item in items])
        await _reply(pipeline.execute(), timeout_s)

    async def remove(self, skus: Sequence[str], timeout_s: float) -> list[str]:
        """Remove items in one transaction and record the time of the change."""
        pipeline = self._redis.pipeline()
        for sku in skus:
            pipeline.delete(item_key(sku))
        pipeline.srem(OUT_OF_STOCK_KEY, *skus)
        self._record_changes(pipeline, skus)
        replies = await _reply(pipeline.execute(), timeout_s)  # those of the deletes come first
        return [sku for sku, deleted in zip(skus, replies, strict=False) if not deleted]

    async def set_stock(self, skus: Sequence[str], *, in_stock: bool, timeout_s: float) -> list[str]:
        """Look the items up, then mark the known ones with a single command."""
        deadline = time.monotonic() + timeout_s
        items = await self.items(skus, timeout_s)
        known = [item.sku for item in items if item is not None]
        if known:
            mark = self._redis.srem if in_stock else self._redis.sadd
            await _reply(mark(OUT_OF_STOCK_KEY, *known), deadline - time.monotonic())
        return [sku for sku, item in zip(skus, items, strict=True) if item is None]

    async def version(self, timeout_s: float) -> str | None:
        """Read the live version and remember it for the next user."""
        (raw,) = await self._mget([BUNDLE_KEY], timeout_s)
        return self._remember_version(raw) or None

    def _remember_version(self, bundle: bytes | None) -> str:
        """Return the live version, empty before the first seed, and remember it for the next user."""
        live = load_bundle(bundle)
        self._version = live.version if live else ""
        return self._version

    @staticmethod
    def _record_changes(pipeline: Pipeline, skus: Sequence[str]) -> None:
        pipeline.hset(ITEM_CHANGES_KEY, mapping=dict.fromkeys(skus, int(time.time())))

    async def _mget(self, keys: list[str], timeout_s: float) -> list[bytes | None]:
        return await _reply(self._redis.mget(keys), timeout_s)


@asynccontextmanager
async def connect_profiles(settings: RedisSettings) -> AsyncIterator[RedisProfileStore]:
    """Open the profile store in the configured Redis."""
    async with open_redis(settings) as redis:
        yield RedisProfileStore(redis)


@asynccontextmanager
async def open_redis(settings: RedisSettings, **options: Any) -> AsyncIterator[Redis]:
    """Open a client of the configured Redis. It connects at the first command and does not retry."""
    redis = Redis.from_url(
        settings.redis_url,
        password=settings.redis_password,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=1.0,
        health_check_interval=0,
        **options,
    )
    try:
        yield redis
    finally:
        await redis.aclose()


async def _reply(command: Awaitable[Any], timeout_s: float) -> Any:
    return await bounded(
        timeout_s, "the profile store", command, dependency="redis", unavailable_on=(RedisError, OSError)
    )


def _item(sku: str, raw: bytes, *, out_of_stock: bool) -> Item | None:
    """Decode an item. Logs a malformed record and returns None, so that it does not fail the other items."""
    try:
        return load_item(sku, raw, out_of_stock=out_of_stock)
    except MalformedData as error:
        log.warning("skipped an item", reason=error.text)
        return None

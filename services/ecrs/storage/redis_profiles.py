"""The profile store in Redis or Valkey."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ecrs.domain.aggregates import Aggregates
from ecrs.domain.entities import Item, User
from ecrs.rpc.deadlines import bounded
from ecrs.rpc.errors import MalformedData, Unavailable
from ecrs.settings import RedisSettings
from ecrs.storage.item_journal import ItemChange
from ecrs.storage.item_writes import ItemWrite, position_key, write_items
from ecrs.storage.malformed_records import MalformedRecords
from ecrs.storage.profiles import NotSeeded
from ecrs.storage.records import (
    BUNDLE_KEY,
    MAX_AGGREGATES_BYTES,
    MAX_RECORD_BYTES,
    OUT_OF_STOCK_KEY,
    StoredValue,
    aggregates_key,
    history_key,
    item_key,
    load_aggregates,
    load_bundle,
    load_history,
    load_item,
    load_profile,
    user_key,
)

T = TypeVar("T")

_BOUNDED_MGET = """
local values = {}
for index, key in ipairs(KEYS) do
  local value = redis.pcall('GETRANGE', key, 0, ARGV[1])
  if type(value) == 'table' and value.err:sub(1, 9) ~= 'WRONGTYPE' then return value end
  values[index] = (value ~= '' or redis.call('EXISTS', key) == 1) and value
end
return values
"""
"""MGET of at most ARGV[1] + 1 bytes of each value, so that nobody waits for an overlong value to be sent.

Returns nil for a key that is missing, and an error in place of a value that is not a string. It is a script
because a GETRANGE per key takes the client four times as long as MGET does; the script takes the same.
"""


class RedisProfileStore:
    """An `ItemStore` in Redis. The methods raise what the protocol says."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._version = ""
        self._malformed = MalformedRecords()

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        """Read a user in one command; read again if another bundle has gone live since the last read."""
        deadline = time.monotonic() + timeout_s
        while True:
            version = self._version
            keys = [
                BUNDLE_KEY,
                user_key(user_id),
                history_key(user_id, version),
                aggregates_key(user_id, version),
            ]
            command = self._bounded_mget(self._redis, keys, MAX_AGGREGATES_BYTES)
            bundle, *values = await _reply(command, deadline - time.monotonic())
            if self._live_version(bundle) == version:
                return self._user(user_id, *values)
            # Another bundle went live: these keys belong to the former one and may be partly removed. Retry.

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        """Read items, whether they are in stock, and the live bundle, in one round trip."""
        if not skus:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        self._bounded_mget(pipeline, [BUNDLE_KEY, *map(item_key, skus)], MAX_RECORD_BYTES)
        pipeline.smismember(OUT_OF_STOCK_KEY, list(skus))
        (bundle, *values), out_of_stock = await _reply(pipeline.execute(), timeout_s)
        self._live_version(bundle)
        return [
            self._item(sku, value, out_of_stock=bool(out))
            for sku, value, out in zip(skus, values, out_of_stock, strict=True)
        ]

    async def missing(self, skus: Sequence[str], timeout_s: float) -> list[str]:
        """Look up which keys exist, so that a malformed record can be removed and replaced, too."""
        pipeline = self._redis.pipeline(transaction=False)
        for sku in skus:
            pipeline.exists(item_key(sku))
        existing = await _reply(pipeline.execute(), timeout_s)
        return [sku for sku, exists in zip(skus, existing, strict=True) if not exists]

    async def position(self, follower: str, timeout_s: float) -> str:
        """Read the position. One that is not UTF-8 equals none that a journal gives, so all is read again."""
        raw = await _reply(self._redis.get(position_key(follower)), timeout_s)
        return (raw or b"").decode(errors="replace")

    async def set_position(self, follower: str, position: str, timeout_s: float) -> None:
        """Write the position."""
        await _reply(self._redis.set(position_key(follower), position), timeout_s)

    async def apply(
        self, follower: str, after: str, upto: str, changes: Sequence[ItemChange], timeout_s: float
    ) -> bool:
        """Apply changes by one script."""
        command = write_items(follower, after, upto, [ItemWrite.of(change) for change in changes])
        return await _reply(self._redis.execute_command(*command), timeout_s) is not None

    async def version(self, timeout_s: float) -> str | None:
        """Read the live version and remember it for the next user."""
        (bundle,) = await _reply(self._bounded_mget(self._redis, [BUNDLE_KEY], MAX_RECORD_BYTES), timeout_s)
        try:
            return self._live_version(bundle)
        except NotSeeded:
            return None

    def _live_version(self, bundle: StoredValue | None) -> str:
        """Return the live version and remember it for the next user.

        Raises NotSeeded if there is none, and Unavailable if the bundle's record is malformed.
        """
        self._version = ""
        try:
            live = load_bundle(bundle)
        except MalformedData as error:
            raise Unavailable(f"{error.text}: seed the profile store again") from error
        if live is None:
            raise NotSeeded
        self._version = live.version
        return live.version

    def _user(
        self,
        user_id: str,
        profile: StoredValue | None,
        history: StoredValue | None,
        aggregates: StoredValue | None,
    ) -> User | None:
        if profile is None:
            return None
        return replace(
            self._valid("profile", load_profile, user_id, profile, User(user_id)),
            history=self._valid("history", load_history, user_id, history, ()),
            aggregates=self._valid("aggregates", load_aggregates, user_id, aggregates, Aggregates()),
        )

    def _item(self, sku: str, value: StoredValue | None, *, out_of_stock: bool) -> Item | None:
        item = self._valid("item", load_item, sku, value, None)
        return replace(item, out_of_stock=True) if item and out_of_stock else item

    def _valid(
        self,
        record: str,
        load: Callable[[str, StoredValue], T],
        id_: str,
        value: StoredValue | None,
        default: T,
    ) -> T:
        """Decode a value; `default` if it is missing or, which is reported, malformed."""
        if value is None:
            return default
        try:
            return load(id_, value)
        except MalformedData as error:
            self._malformed.report(record, error.text)
            return default

    @staticmethod
    def _bounded_mget(redis: Redis, keys: Sequence[str], max_bytes: int) -> Awaitable[Any]:
        """Return the command, or add it to a pipeline, that reads `max_bytes` + 1 bytes of each value."""
        return redis.eval_ro(_BOUNDED_MGET, len(keys), *keys, str(max_bytes))


@asynccontextmanager
async def connect_profiles(settings: RedisSettings) -> AsyncIterator[RedisProfileStore]:
    """Open the profile store in the configured Redis."""
    async with open_redis(settings) as redis:
        yield RedisProfileStore(redis)


@asynccontextmanager
async def open_redis(settings: RedisSettings, **options: Any) -> AsyncIterator[Redis]:
    """Open a client of the configured Redis. It connects at the first command and does not retry.

    With a rediss:// URL, the server's certificate must be valid for the host name of the URL.
    """
    if settings.redis_ca:
        options["ssl_ca_certs"] = str(settings.redis_ca)
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

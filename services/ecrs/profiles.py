"""The profile store: users, their histories and products in Redis, under the original's keys.

{id}##user_info      JSON object, names of UserInfo
{id}##history        JSON list, newest first, of [sku, ts, type]
{id}##totals         JSON object, the columns of Totals (ecrs.totals), a list each
{id}##product_info   JSON object, names of ItemInfo
ecrs##bundle         JSON object, which bundle was seeded
ecrs##changed        set of skus put or removed since: seeding the same bundle again leaves them alone
ecrs##out_of_stock   set of skus; it outlives bundles, for it is the shop's word and not the training's
"""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ecrs.actions import ActionType, Interaction
from ecrs.domain import Item, User
from ecrs.kit.errors import Fault, quoted
from ecrs.kit.limit import within
from ecrs.kit.settings import RedisSettings
from ecrs.totals import TOTALS, WHOLE, Totals

log = structlog.get_logger()

BUNDLE_KEY = "ecrs##bundle"
CHANGED_KEY = "ecrs##changed"
OUT_OF_STOCK_KEY = "ecrs##out_of_stock"

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)
"""What reading a stored value raises that somebody else wrote."""


def user_key(user_id: str) -> str:
    return f"{user_id}##user_info"


def history_key(user_id: str) -> str:
    return f"{user_id}##history"


def totals_key(user_id: str) -> str:
    return f"{user_id}##totals"


def item_key(sku: str) -> str:
    return f"{sku}##product_info"


_USER_NAMES = {
    "id": "user_id",
    "age": "age",
    "sex": "sex",
    "city_level": "city_level",
    "province": "province",
    "city": "city",
    "county": "country",
}
"""What the fields of a User are called in a stored record."""


def dump_user(user: User) -> bytes:
    return orjson.dumps({name: getattr(user, field) for field, name in _USER_NAMES.items()})


def dump_history(history: Sequence[Interaction]) -> bytes:
    return orjson.dumps([[i.sku, i.ts, int(i.type)] for i in history])


def dump_totals(totals: Totals) -> bytes:
    columns = zip(TOTALS, totals.numbers.T, strict=True)
    whole = {name: column.astype(np.int64) if name in WHOLE else column for name, column in columns}
    lists = {name: column.tolist() for name, column in whole.items()}
    return orjson.dumps({"sku_ids": totals.skus} | lists)


def dump_item(item: Item) -> bytes:
    record = {"sku_id": item.sku, "brand": item.brand, "shopid": item.shop, "cate": item.category}
    return orjson.dumps(record | ({"statistics": item.statistics} if item.statistics else {}))


class Profiles(Protocol):
    """What um and cm read.

    Every method raises Unavailable when the store is away, OutOfTime past `timeout_s`.
    """

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        """The user with history and totals, or None if unknown; Fault if what is stored cannot be read."""

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        """The items in the order of `skus`, None where unknown, or where the record cannot be read."""

    async def version(self, timeout_s: float) -> str | None:
        """The bundle version the store was seeded with; None before the first seeding."""


class ItemStore(Profiles, Protocol):
    """What cm also writes: no sku twice in one call. Each call is done as a whole or not at all."""

    async def put(self, items: Sequence[Item], timeout_s: float) -> None:
        """Write the records and whether they are in stock; a known item keeps its own statistics."""

    async def remove(self, skus: Sequence[str], timeout_s: float) -> list[str]:
        """Forget the items; the skus that were not known."""

    async def set_stock(self, skus: Sequence[str], *, in_stock: bool, timeout_s: float) -> list[str]:
        """Mark the known ones of `skus`; the skus that are not known."""


class RedisProfiles:
    """`ItemStore` in Redis or Valkey."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def user(self, user_id: str, timeout_s: float) -> User | None:
        keys = [user_key(user_id), history_key(user_id), totals_key(user_id)]
        profile, history, totals = await self._mget(keys, timeout_s)
        if profile is None:
            return None
        try:
            return _load_user(profile, history, totals)
        except UNREADABLE as error:
            raise Fault(f"what is stored of user {quoted(user_id)} cannot be read") from error

    async def items(self, skus: Sequence[str], timeout_s: float) -> list[Item | None]:
        if not skus:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.mget([item_key(sku) for sku in skus])
        pipeline.smismember(OUT_OF_STOCK_KEY, list(skus))
        records, out_of_stock = await _answer(pipeline.execute(), timeout_s)
        return [
            None if raw is None else _item(sku, raw, out_of_stock=bool(out))
            for sku, raw, out in zip(skus, records, out_of_stock, strict=True)
        ]

    async def put(self, items: Sequence[Item], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        known = await self.items([item.sku for item in items], timeout_s)
        pipeline = self._redis.pipeline()
        for item, old in zip(items, known, strict=True):
            statistics = old.statistics if old else ()
            pipeline.set(item_key(item.sku), dump_item(replace(item, statistics=statistics)))
            mark = pipeline.sadd if item.out_of_stock else pipeline.srem
            mark(OUT_OF_STOCK_KEY, item.sku)
        pipeline.sadd(CHANGED_KEY, *(item.sku for item in items))
        await _answer(pipeline.execute(), deadline - time.monotonic())

    async def remove(self, skus: Sequence[str], timeout_s: float) -> list[str]:
        pipeline = self._redis.pipeline()
        for sku in skus:
            pipeline.delete(item_key(sku))
        pipeline.srem(OUT_OF_STOCK_KEY, *skus)
        pipeline.sadd(CHANGED_KEY, *skus)
        deleted = await _answer(pipeline.execute(), timeout_s)
        return [sku for sku, count in zip(skus, deleted, strict=False) if not count]

    async def set_stock(self, skus: Sequence[str], *, in_stock: bool, timeout_s: float) -> list[str]:
        deadline = time.monotonic() + timeout_s
        found = await self.items(skus, timeout_s)
        known = [item.sku for item in found if item is not None]
        if known:
            mark = self._redis.srem if in_stock else self._redis.sadd
            await _answer(mark(OUT_OF_STOCK_KEY, *known), deadline - time.monotonic())
        return [sku for sku, item in zip(skus, found, strict=True) if item is None]

    async def version(self, timeout_s: float) -> str | None:
        (raw,) = await self._mget([BUNDLE_KEY], timeout_s)
        return None if raw is None else orjson.loads(raw)["version"]

    async def _mget(self, keys: list[str], timeout_s: float) -> list[bytes | None]:
        return await _answer(self._redis.mget(keys), timeout_s)


async def _answer(command: Awaitable[Any], timeout_s: float) -> Any:
    return await within(
        timeout_s, "the profile store", command, dependency="redis", away=(RedisError, OSError)
    )


@asynccontextmanager
async def connect(settings: RedisSettings) -> AsyncIterator[RedisProfiles]:
    async with open_redis(settings) as redis:
        yield RedisProfiles(redis)


@asynccontextmanager
async def open_redis(settings: RedisSettings, **options: Any) -> AsyncIterator[Redis]:
    """A client of the configured store; it connects at the first command and does not retry."""
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


def _item(sku: str, raw: bytes, *, out_of_stock: bool) -> Item | None:
    """None also for a record that cannot be read: the others of an answer are fine without it."""
    try:
        return _load_item(raw, out_of_stock=out_of_stock)
    except UNREADABLE as error:
        log.warning("a stored product cannot be read", sku=sku, error=repr(error))
        return None


def _load_user(profile: bytes, history: bytes | None, totals: bytes | None) -> User:
    raw = orjson.loads(profile)
    interactions = orjson.loads(history) if history else []
    return User(
        **{field: _text(raw, name) for field, name in _USER_NAMES.items()},
        history=tuple(Interaction(str(sku), int(ts), ActionType(kind)) for sku, ts, kind in interactions),
        totals=_load_totals(totals) if totals else Totals(),
    )


def _load_totals(raw: bytes) -> Totals:
    record = orjson.loads(raw)
    numbers = np.array([record[name] for name in TOTALS], dtype=np.float64).T
    return Totals(tuple(record["sku_ids"]), numbers)


def _load_item(raw: bytes, *, out_of_stock: bool) -> Item:
    record = orjson.loads(raw)
    statistics = tuple(math.nan if one is None else float(one) for one in record.get("statistics", ()))
    sku, brand, shop, category = (_text(record, name) for name in ("sku_id", "brand", "shopid", "cate"))
    return Item(sku, brand, shop, category, statistics, out_of_stock)


def _text(record: Any, name: str) -> str:
    """Of a stored object; KeyError or TypeError if it is not there or is no text."""
    if not isinstance(text := record[name], str):
        raise TypeError(f"{name}: expected a text, got {text!r:.80}")
    return text

"""Load a bundle's users, histories and products into the profile store."""

import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import hiredis
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ecrs.bundle import Bundle
from ecrs.domain.files import parse_history, parse_item, parse_user
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.waiting import wait_until
from ecrs.storage.records import (
    BUNDLE_KEY,
    CHANGED_KEY,
    aggregates_key,
    dump_history,
    dump_item,
    dump_user,
    history_key,
    item_key,
    user_key,
)
from ecrs_seed.report import SeedReport

FILES = ("users.dat", "histories.dat", "aggregates.dat", "products.dat")
"""A record a line."""

BATCH = 500
SAMPLE = 64
"""Keys looked at before "there already" is believed."""

Record = tuple[str, bytes | str]


async def seed_redis(
    bundle: Bundle,
    redis: Redis,
    *,
    wait_s: float | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> SeedReport:
    """Write every record of the bundle under the original's keys, the bundle's version last.

    Waits for the store, up to `wait_s`. Does nothing when this version is there already.
    `advance` is told the rows written since its last call. Running it again after a failure is
    safe: each key is overwritten, but for products that were put or removed since this version came.
    Another version brings its own catalogue.
    """

    async def ping() -> None:
        try:
            await redis.ping()
        except (RedisError, OSError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    await wait_until("the profile store", ping, limit_s=wait_s)
    started = time.monotonic()
    rows = sum(bundle.count(name) for name in FILES)
    held, changed = await _held(redis)
    same = held.get("version") == bundle.version
    if not same:
        changed = set()
    if held == {"version": bundle.version, "rows": rows} and await _is_there(bundle, redis, rows, changed):
        return SeedReport("redis", bundle.version, rows, time.monotonic() - started, already_there=True)
    await _write(bundle, redis, changed, advance)
    async with redis.pipeline() as finish:
        finish.set(BUNDLE_KEY, orjson.dumps({"version": bundle.version, "rows": rows}))
        if not same:
            finish.delete(CHANGED_KEY)
        await finish.execute()
    return SeedReport("redis", bundle.version, rows, time.monotonic() - started)


def _records(bundle: Bundle) -> Iterator[Record]:
    for user in bundle.records("users.dat", parse_user):
        yield user_key(user.id), dump_user(user)
    for user_id, history in bundle.records("histories.dat", parse_history):
        yield history_key(user_id), dump_history(history)
    for line in bundle.lines("aggregates.dat"):
        user_id, _, aggregates = line.partition(":")
        yield aggregates_key(user_id), aggregates
    for item in bundle.records("products.dat", parse_item):
        yield item_key(item.sku), dump_item(item)


async def _write(bundle: Bundle, redis: Redis, changed: set[str], advance: Callable[[int], None]) -> None:
    """All but the keys that are `changed`. While the store works on a batch the next one is made."""
    connection = await redis.connection_pool.get_connection()
    made = sent = 0
    try:
        for batch in batches(bundle):
            made += len(batch)
            if not (kept := [record for record in batch if record[0] not in changed]):
                continue
            # The client's own `mset` packs in Python, which takes half as long as the store with the rows.
            words: tuple[Any, ...] = ("MSET", *chain.from_iterable(kept))
            await connection.send_packed_command(hiredis.pack_command(words))
            if sent:
                await connection.read_response()
                advance(sent)
            made, sent = 0, made
        if sent:
            await connection.read_response()
        advance(made + sent)
    except BaseException:
        # An answer that nobody read would be taken for the next command's.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await redis.connection_pool.release(connection)


async def _held(redis: Redis) -> tuple[dict[str, Any], set[str]]:
    """What the store says it was seeded with, and the keys of products that were changed since."""
    raw = await redis.get(BUNDLE_KEY)
    changed = {item_key(sku.decode()) async for sku in redis.sscan_iter(CHANGED_KEY, count=1000)}
    return orjson.loads(raw) if raw else {}, changed


async def _is_there(bundle: Bundle, redis: Redis, rows: int, changed: set[str]) -> bool:
    step = max(rows // SAMPLE, 1)
    keys = [key for key in islice(_keys(bundle), 0, None, step) if key not in changed]
    return not keys or None not in await redis.mget(keys)


def _keys(bundle: Bundle) -> Iterator[str]:
    """Of all records, in their order, without making one."""
    for name, key in zip(FILES, (user_key, history_key, aggregates_key, item_key), strict=True):
        for line in bundle.lines(name):
            yield key(line.partition(":")[0].strip())


def batches(bundle: Bundle) -> Iterator[list[Record]]:
    """Every record of the bundle."""
    records = _records(bundle)
    while batch := list(islice(records, BATCH)):
        yield batch

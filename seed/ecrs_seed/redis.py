"""Load a bundle's users, histories, aggregates and items into the profile store.

Histories and aggregates are written under the bundle's version while the former version is still read. Then
users and items are replaced one by one, the version goes live in one step, and what the bundle does not have
is removed. A seed that fails or is killed before that step leaves the former version live. Seeding again, the
same bundle or another, repairs whatever it left.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any, TypeVar

import hiredis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ecrs.bundle import Bundle
from ecrs.domain.files import parse_item
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.waiting import wait_until
from ecrs.storage.records import (
    BUNDLE_KEY,
    ITEM_CHANGES_KEY,
    StoredBundle,
    StoredKey,
    dump_bundle,
    load_bundle,
)
from ecrs_seed.bundle_records import FILES, keys, user_records
from ecrs_seed.errors import SeedError
from ecrs_seed.item_changes import Command, write_items
from ecrs_seed.report import SeedReport
from ecrs_seed.stale_keys import remove_bundle_derived, remove_stale

BATCH = 500
SAMPLE = 64
"""Keys looked up to see whether a complete store has lost records."""

T = TypeVar("T")


async def seed_redis(
    bundle: Bundle,
    redis: Redis,
    *,
    wait_s: float | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> SeedReport:
    """Replace what the store holds by the bundle; do nothing if it holds this version and is complete.

    Waits for the store, up to `wait_s`. Calls `advance` with the number of rows written since the last call.
    Items that were added, changed or removed through cm stay as they are unless the bundle's `as_of` is later
    than the change. Raises BundleError for a bad line and SeedError if the store fails or refuses.
    """

    async def ping() -> None:
        try:
            await redis.ping()
        except (RedisError, OSError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    await wait_until("the profile store", ping, limit_s=wait_s)
    try:
        return await _seed(bundle, redis, advance)
    except RedisError as error:
        raise SeedError(f"the profile store cannot be seeded with {bundle.version}: {error}") from error


async def _seed(bundle: Bundle, redis: Redis, advance: Callable[[int], None]) -> SeedReport:
    started = time.monotonic()
    rows = sum(bundle.count(name) for name in FILES)
    held = await _held(redis)
    if held == StoredBundle(bundle.version, complete=True) and await _has_sample(bundle, redis):
        return SeedReport("redis", bundle.version, rows, time.monotonic() - started, already_there=True)
    if held:
        await _hold(redis, StoredBundle(held.version))
        if not held.complete:  # a seed was killed, which takes room
            await remove_bundle_derived(redis, except_of={held.version, bundle.version})
    try:
        await _write(bundle, redis, advance)
    except Exception:
        # The store may be full, and then it refuses the shop's changes too: give back the room.
        with suppress(RedisError):
            live = await _held(redis)
            await remove_bundle_derived(redis, except_of={live.version} if live else set())
        raise
    await _hold(redis, StoredBundle(bundle.version))
    removed = await remove_stale(bundle, redis)
    await _hold(redis, StoredBundle(bundle.version, complete=True))
    return SeedReport("redis", bundle.version, rows, time.monotonic() - started, removed=removed)


async def _held(redis: Redis) -> StoredBundle | None:
    raw: Any = await redis.get(BUNDLE_KEY)
    return load_bundle(raw)


async def _hold(redis: Redis, bundle: StoredBundle) -> None:
    await redis.set(BUNDLE_KEY, dump_bundle(bundle))


def batches(records: Iterable[T]) -> Iterator[list[T]]:
    """Lists of BATCH, the last one shorter."""
    iterator = iter(records)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _commands(bundle: Bundle) -> Iterator[tuple[int, Command]]:
    """The commands that write the bundle, each with its number of rows."""
    for batch in batches(user_records(bundle)):
        yield len(batch), ("MSET", *chain.from_iterable(batch))
    for items in batches(bundle.records("products.dat", parse_item)):
        yield len(items), write_items(bundle.as_of, items)


async def _write(bundle: Bundle, redis: Redis, advance: Callable[[int], None]) -> None:
    """Send the commands, each while the store works on the one before."""
    connection = await redis.connection_pool.get_connection()
    sent = 0
    try:
        for rows, words in _commands(bundle):
            # The client's own packing, in Python, takes half as long as the store with the rows.
            await connection.send_packed_command(hiredis.pack_command(words))
            if sent:
                await connection.read_response()
                advance(sent)
            sent = rows
        if sent:
            await connection.read_response()
            advance(sent)
    except BaseException:
        # A reply that was not read would be taken for that of the next command.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await redis.connection_pool.release(connection)


async def _has_sample(bundle: Bundle, redis: Redis) -> bool:
    """Whether a sample of the bundle's keys is there, but for items that were removed through cm."""
    step = max(sum(bundle.count(name) for name in FILES) // SAMPLE, 1)
    sample = list(islice(keys(bundle), 0, None, step))
    lost = [key for key, value in zip(sample, await redis.mget(sample), strict=True) if value is None]
    if not lost:
        return True
    parsed = [StoredKey.parse(key.encode()) for key in lost]
    skus = [key.id for key in parsed if key and key.is_item]
    return len(skus) == len(lost) and None not in await redis.hmget(ITEM_CHANGES_KEY, skus)

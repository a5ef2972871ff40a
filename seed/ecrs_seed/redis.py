"""Loads a bundle's users, histories, aggregates and items into the profile store.

Histories and aggregates are written under the bundle's version while the previous version is still read. Then
users and items are replaced one by one, the version goes live in one step, and data that the bundle does not
have is removed. A seed that fails or is killed before that step leaves the previous version live. Another
seed, of the same bundle or another one, completes or cleans up an unfinished one.
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
from ecrs.rpc.errors import MalformedData, Unavailable
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
"""Records per command."""
SAMPLE = 64
"""Number of keys looked up to detect that a complete store has lost records."""

T = TypeVar("T")


async def seed_redis(
    bundle: Bundle,
    redis: Redis,
    *,
    wait_s: float | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> SeedReport:
    """Replace the contents of the store with the bundle. Do nothing if the store already holds all of it.

    Waits for the store, for at most `wait_s` seconds, then raises Unavailable. Calls `advance` with the
    number of rows written since the last call. Items that were added, changed or removed through cm stay as
    they are unless the bundle's `as_of` is later than the change. Raises BundleError for a malformed line,
    and SeedError if the store fails or refuses a command.
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
    live = await _read_live(redis)
    if live == StoredBundle(bundle.version, complete=True) and await _has_sample(bundle, redis):
        return SeedReport("redis", bundle.version, rows, time.monotonic() - started, already_there=True)
    if live:
        await _set_live(redis, StoredBundle(live.version))
        if not live.complete:  # free the memory that an unfinished seed takes
            await remove_bundle_derived(redis, except_of={live.version, bundle.version})
    try:
        await _write(bundle, redis, advance)
    except Exception:
        # If the store is full, it refuses changes by the shop as well, so free the memory taken so far.
        with suppress(RedisError):
            live = await _read_live(redis)
            await remove_bundle_derived(redis, except_of={live.version} if live else set())
        raise
    await _set_live(redis, StoredBundle(bundle.version))
    removed = await remove_stale(bundle, redis)
    await _set_live(redis, StoredBundle(bundle.version, complete=True))
    return SeedReport("redis", bundle.version, rows, time.monotonic() - started, removed=removed)


async def _read_live(redis: Redis) -> StoredBundle | None:
    """Return the live bundle; None if there is none, or if its record is malformed and is to be replaced."""
    raw: Any = await redis.get(BUNDLE_KEY)
    try:
        return load_bundle(raw)
    except MalformedData:
        return None


async def _set_live(redis: Redis, bundle: StoredBundle) -> None:
    await redis.set(BUNDLE_KEY, dump_bundle(bundle))


def batches(records: Iterable[T]) -> Iterator[list[T]]:
    """Yield the records in lists of BATCH; the last list may be shorter."""
    iterator = iter(records)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _commands(bundle: Bundle) -> Iterator[tuple[int, Command]]:
    """Yield the commands that write the bundle, each with its number of rows."""
    for batch in batches(user_records(bundle)):
        yield len(batch), ("MSET", *chain.from_iterable(batch))
    for items in batches(bundle.records("products.dat", parse_item)):
        yield len(items), write_items(bundle.as_of, items)


async def _write(bundle: Bundle, redis: Redis, advance: Callable[[int], None]) -> None:
    """Send the commands that write the bundle, each while the store processes the one before."""
    connection = await redis.connection_pool.get_connection()
    unanswered = 0  # rows of the command whose reply was not read yet
    try:
        for rows, command in _commands(bundle):
            # Packed by hiredis: packing in Python takes half as long as the store needs for the rows.
            await connection.send_packed_command(hiredis.pack_command(command))
            if unanswered:
                await connection.read_response()
                advance(unanswered)
            unanswered = rows
        if unanswered:
            await connection.read_response()
            advance(unanswered)
    except BaseException:
        # The next user of this connection would take an unread reply for its own.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await redis.connection_pool.release(connection)


async def _has_sample(bundle: Bundle, redis: Redis) -> bool:
    """Return True if the store has a sample of the bundle's keys, except for items removed through cm."""
    step = max(sum(bundle.count(name) for name in FILES) // SAMPLE, 1)
    sample = list(islice(keys(bundle), 0, None, step))
    missing = [key for key, value in zip(sample, await redis.mget(sample), strict=True) if value is None]
    if not missing:
        return True
    parsed = [StoredKey.parse(key.encode()) for key in missing]
    skus = [key.id for key in parsed if key and key.is_item]
    return len(skus) == len(missing) and None not in await redis.hmget(ITEM_CHANGES_KEY, skus)

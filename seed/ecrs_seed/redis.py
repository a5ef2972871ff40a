"""Loads a bundle's users, histories, aggregates and items into the profile store.

Histories and aggregates are written under the bundle's version while the previous version is still read. Then
users and items are replaced one by one, the version goes live in one step, and data that the bundle does not
have is removed. Items that people changed stay as the journal of item changes has them. A seed that fails or
is killed before that step leaves the previous version live. Another seed, of the same bundle or another one,
completes or cleans up an unfinished one.
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
from ecrs.storage.item_journal import ItemJournal
from ecrs.storage.item_writes import Command
from ecrs.storage.records import (
    BUNDLE_KEY,
    StoredBundle,
    StoredKey,
    dump_bundle,
    load_bundle,
)
from ecrs.storage.redis_item_journal import RedisItemJournal
from ecrs_seed.bundle_records import FILES, keys, user_records
from ecrs_seed.errors import SeedError
from ecrs_seed.former_changes import import_former_changes
from ecrs_seed.items import ItemRecords
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
    journal: ItemJournal | None = None,
    *,
    wait_s: float | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> SeedReport:
    """Replace the contents of the store with the bundle. Do nothing if the store already holds all of it.

    Waits for the store, for at most `wait_s` seconds, then raises Unavailable. Calls `advance` with the
    number of rows written since the last call. Items that were added, changed or removed through cm are as
    `journal` has them, by default the one in the same Redis. Raises BundleError for a malformed line,
    SeedError if the store fails or refuses a command, and Unavailable if the journal fails.
    """

    async def ping() -> None:
        try:
            await redis.ping()
        except (RedisError, OSError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    await wait_until("the profile store", ping, limit_s=wait_s)
    try:
        return await _seed(bundle, redis, ItemRecords(redis, journal or RedisItemJournal(redis)), advance)
    except RedisError as error:
        raise SeedError(f"the profile store cannot be seeded with {bundle.version}: {error}") from error


async def _seed(
    bundle: Bundle, redis: Redis, items: ItemRecords, advance: Callable[[int], None]
) -> SeedReport:
    started = time.monotonic()
    rows = sum(bundle.count(name) for name in FILES)
    live = await _read_live(redis)
    await import_former_changes(redis, items.journal)
    await items.follow_journal()
    if live == StoredBundle(bundle.version, complete=True) and await _has_sample(bundle, redis, items):
        return SeedReport("redis", bundle.version, rows, time.monotonic() - started, already_there=True)
    if live:
        await _set_live(redis, StoredBundle(live.version))
        if not live.complete:  # free the memory that an unfinished seed takes
            await remove_bundle_derived(redis, except_of={live.version, bundle.version})
    try:
        await _write_users(bundle, redis, advance)
        for batch in batches(bundle.records("products.dat", parse_item)):
            await items.write(batch)
            advance(len(batch))
    except Exception:
        # If the store is full, it refuses changes by the shop as well, so free the memory taken so far.
        with suppress(RedisError):
            live = await _read_live(redis)
            await remove_bundle_derived(redis, except_of={live.version} if live else set())
        raise
    await _set_live(redis, StoredBundle(bundle.version))
    removed = await remove_stale(bundle, redis, items)
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


async def _write_users(bundle: Bundle, redis: Redis, advance: Callable[[int], None]) -> None:
    """Write the records of the users, sending each batch while the store processes the one before."""
    connection = await redis.connection_pool.get_connection()
    unanswered = 0  # rows of the command whose reply was not read yet
    try:
        for batch in batches(user_records(bundle)):
            # Packed by hiredis: packing in Python takes half as long as the store needs for the rows.
            command: Command = ("MSET", *chain.from_iterable(batch))
            await connection.send_packed_command(hiredis.pack_command(command))
            if unanswered:
                await connection.read_response()
                advance(unanswered)
            unanswered = len(batch)
        if unanswered:
            await connection.read_response()
            advance(unanswered)
    except BaseException:
        # The next user of this connection would take an unread reply for its own.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await redis.connection_pool.release(connection)


async def _has_sample(bundle: Bundle, redis: Redis, items: ItemRecords) -> bool:
    """Return True if the store has a sample of the bundle's keys, except for items that people removed."""
    step = max(sum(bundle.count(name) for name in FILES) // SAMPLE, 1)
    sample = list(islice(keys(bundle), 0, None, step))
    missing = [key for key, value in zip(sample, await redis.mget(sample), strict=True) if value is None]
    parsed = [StoredKey.parse(key.encode()) for key in missing]
    skus = [key.id for key in parsed if key and key.is_item]
    return len(skus) == len(missing) and await items.are_replaced(skus)

"""Seeding Valkey and, if configured, Redis: which records are written, replaced, removed and kept."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Connection, Redis

from ecrs.bundle import Bundle, BundleError
from ecrs.domain.actions import Interaction
from ecrs.domain.aggregates import Aggregates
from ecrs.domain.entities import Item
from ecrs.domain.files import parse_item
from ecrs.rpc.errors import Unavailable
from ecrs.settings import RedisSettings
from ecrs.storage.record_updates import apply_all
from ecrs.storage.redis_item_journal import RedisItemJournal
from ecrs.storage.redis_profiles import RedisProfileStore, open_redis
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from ecrs_seed import bundle_records, stale_keys
from ecrs_seed import redis as seed
from ecrs_seed.errors import SeedError
from ecrs_seed.redis import seed_redis
from tests.tiny import as_version, resealed

DAY_S = 86_400


def edited(bundle: Bundle, directory: Path, **changes: Callable[[list[str]], list[str]]) -> Bundle:
    """Copy the bundle into `directory` and apply each change to the lines of its `NAME.dat`."""
    copy = Path(shutil.copytree(bundle.path, directory / "copy"))
    for name, change in changes.items():
        path = copy / f"{name}.dat"
        path.write_text("\n".join([*change(path.read_text().removesuffix("\n").split("\n")), ""]))
    return resealed(copy)


@pytest.fixture
def newer(tiny: Bundle, tmp_path: Path) -> Bundle:
    """A bundle four weeks newer: users have each other's histories, and some users and items are new."""

    def shifted(lines: list[str]) -> list[str]:
        ids, values = zip(*(line.split(":", 1) for line in lines), strict=True)
        return [":".join(line) for line in zip(ids[:-1], values[1:], strict=True)]

    def products(lines: list[str]) -> list[str]:
        return [*(line.replace("1:3456:", "1:3457:") for line in lines[:200]), "fresh:3456:6980:70"]

    def users(lines: list[str]) -> list[str]:
        return [*lines[:-1], "fresh:5.0:1.0:5.0:20.0:176.0:1933.0"]

    made = edited(tiny, tmp_path, users=users, products=products, histories=shifted, aggregates=shifted)
    return as_version(made, as_of=tiny.as_of + 28 * DAY_S)


async def content(redis: Redis) -> dict[str, Any]:
    """Return everything in the store by key, except for the journal of item changes."""
    values: dict[str, Any] = {}
    async for key in redis.scan_iter(count=1000):
        if not key.startswith(b"ecrs##item_journal"):
            is_set = await redis.type(key) == b"set"
            values[key.decode()] = set(await redis.smembers(key)) if is_set else await redis.get(key)
    return values


UserData = tuple[tuple[Interaction, ...], Aggregates]


async def read_user_data(bundle: Bundle, store: RedisProfileStore) -> dict[str, UserData]:
    """Return history and aggregates, as read from the store, of 20 users that all bundles have."""
    user_data = {}
    for line in list(bundle.lines("users.dat"))[:20]:
        user = await store.user(line.partition(":")[0], 5.0)
        assert user is not None
        user_data[user.id] = (user.history, user.aggregates)
    return user_data


async def put(redis: Redis, *items: Item) -> None:
    """Add or change items as cm does: in the journal, then in the store."""
    await RedisItemJournal(redis).put(items, 1.0)
    await apply_all(RedisItemJournal(redis), RedisProfileStore(redis))


async def remove(redis: Redis, *skus: str) -> None:
    await RedisItemJournal(redis).remove(skus, 1.0)
    await apply_all(RedisItemJournal(redis), RedisProfileStore(redis))


async def change_items(redis: Redis) -> None:
    """Add an item, change one, remove one that all bundles have, and mark one as out of stock."""
    await put(redis, Item("added", "a", "b", "c"), Item("1", "changed"))
    await RedisItemJournal(redis).set_stock(["99654"], in_stock=False, timeout_s=1.0)
    await remove(redis, "12048")


async def test_seeding_again_writes_nothing(redis: Redis, tiny: Bundle) -> None:
    first = await seed_redis(tiny, redis, wait_s=10)
    rows_written: list[int] = []
    again = await seed_redis(tiny, redis, wait_s=10, advance=rows_written.append)
    assert (first.already_there, again.already_there, rows_written) == (False, True, [])


async def test_every_item_is_stored_as_in_its_line(redis: Redis, tiny: Bundle, tmp_path: Path) -> None:
    odd = '1ü\u2028x:1 2" tall:back\\slash:ümlaut'
    bundle = edited(tiny, tmp_path, products=lambda lines: [*lines, odd])
    await seed_redis(bundle, redis, wait_s=10)
    items = [parse_item(line) for line in bundle.lines("products.dat")]
    assert await RedisProfileStore(redis).items([item.sku for item in items], 1.0) == items


async def test_every_row_is_reported(redis: Redis, tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed, "BATCH", 10)
    advanced: list[int] = []
    report = await seed_redis(tiny, redis, wait_s=10, advance=advanced.append)
    assert sum(advanced) == report.rows == sum(tiny.count(name) for name in bundle_records.FILES)


def test_expected_keys_are_those_of_the_records(tiny: Bundle) -> None:
    of_users = [key for key, _ in bundle_records.user_records(tiny)]
    of_items = [f"{parse_item(line).sku}##product_info" for line in tiny.lines("products.dat")]
    assert list(bundle_records.keys(tiny)) == of_users + of_items


@pytest.mark.parametrize("kind", ["##product_info", "##user_info", "##history##*", "##aggregates##*"])
async def test_seeding_repairs_store_that_lost_records(redis: Redis, tiny: Bundle, kind: str) -> None:
    await seed_redis(tiny, redis, wait_s=10)
    before = await content(redis)
    await redis.delete(*[key async for key in redis.scan_iter(f"*{kind}")])
    assert not (await seed_redis(tiny, redis, wait_s=10)).already_there
    assert await content(redis) == before


@pytest.mark.parametrize("record", [b"garbage", b'{"version": "VERSION", "complete": false}'])
async def test_seeding_repairs_store_whose_bundle_record_is_malformed_or_incomplete(
    redis: Redis, tiny: Bundle, record: bytes
) -> None:
    await seed_redis(tiny, redis, wait_s=10)
    before = await content(redis)
    await redis.set("1##user_info", b"garbage")
    await redis.set("ecrs##bundle", record.replace(b"VERSION", tiny.version.encode()))
    assert not (await seed_redis(tiny, redis, wait_s=10)).already_there
    assert await content(redis) == before


async def test_item_changes_do_not_count_as_lost_records(redis: Redis, tiny: Bundle) -> None:
    skus = [parse_item(line).sku for line in tiny.lines("products.dat")]
    await seed_redis(tiny, redis, wait_s=10)
    await remove(redis, *skus[:200])
    before = await content(redis)
    assert (await seed_redis(tiny, redis, wait_s=10)).already_there
    await redis.delete(*(f"{sku}##product_info" for sku in skus[250:]))
    assert not (await seed_redis(tiny, redis, wait_s=10)).already_there
    assert await content(redis) == before


async def test_new_bundle_replaces_all_records_of_the_previous_one(
    redis: Redis, tiny: Bundle, newer: Bundle
) -> None:
    await seed_redis(newer, redis, wait_s=10)
    fresh = await content(redis)
    await redis.flushdb()
    await seed_redis(tiny, redis, wait_s=10)
    stale = set(await content(redis)) - set(fresh)
    report = await seed_redis(newer, redis, wait_s=10)
    assert await content(redis) == fresh
    assert report.removed == len(stale) > 200
    assert str(report).endswith(f"rows/s), {report.removed} stale keys removed")


async def test_foreign_keys_are_kept_and_keys_of_the_old_layout_removed(redis: Redis, tiny: Bundle) -> None:
    others = {
        "a key": "1",
        "1##events": "2",
        "##user_info": "3",
        "1##history##": "4",
        "x##product_info##y": "5",
    }
    await redis.mset(others | {"1##history": "[]", "nobody##aggregates": "{}"})
    report = await seed_redis(tiny, redis, wait_s=10)
    assert report.removed == 2
    assert (
        others.items()
        <= {key: bytes(value).decode() for key, value in (await content(redis)).items()}.items()
    )


@pytest.mark.parametrize("days_later", [-365, 365])
async def test_item_changes_outlive_a_bundle_whatever_its_age(
    redis: Redis, tiny: Bundle, newer: Bundle, days_later: int
) -> None:
    newer = as_version(newer, as_of=int(time.time()) + days_later * DAY_S)
    await seed_redis(newer, redis, wait_s=10)
    await change_items(redis)
    expected = await content(redis)
    await redis.flushdb()
    await seed_redis(tiny, redis, wait_s=10)
    await change_items(redis)
    before = await content(redis)
    await seed_redis(newer, redis, wait_s=10)
    assert await content(redis) == expected
    await seed_redis(tiny, redis, wait_s=10)
    assert await content(redis) == before
    assert await RedisProfileStore(redis).items(["added", "1", "12048"], 1.0) == [
        Item("added", "a", "b", "c"), Item("1", "changed"), None,
    ]  # fmt: skip


async def test_an_emptied_store_gets_the_item_changes_back(
    redis: Redis, tiny: Bundle, tmp_path: Path
) -> None:
    with SqliteItemJournal(tmp_path / "items.sqlite") as journal:
        await seed_redis(tiny, redis, journal, wait_s=10)
        await journal.put([Item("added", "a", "b", "c")], 1.0)
        await journal.remove(["12048"], 1.0)
        await journal.set_stock(["99654", "added"], in_stock=False, timeout_s=1.0)
        assert (await seed_redis(tiny, redis, journal, wait_s=10)).already_there
        before = await content(redis)
        assert before["ecrs##out_of_stock"] == {b"99654", b"added"}
        await redis.flushdb()
        await seed_redis(tiny, redis, journal, wait_s=10)
        assert await content(redis) == before


async def test_item_changes_of_a_platform_without_a_journal_are_kept(
    redis: Redis, tiny: Bundle, newer: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_redis(tiny, redis, wait_s=10)
    await change_items(redis)
    expected = await content(redis)
    await redis.delete(*[key async for key in redis.scan_iter("ecrs##item_journal*")])
    changed = dict.fromkeys(("added", "1", "12048", "a;b", b"\xff"), 1700000000)
    await redis.hset("ecrs##item_changes", mapping=changed)
    assert (await seed_redis(tiny, redis, wait_s=10)).already_there
    assert await content(redis) == expected
    for bundle in (newer, tiny):
        await seed_redis(bundle, redis, wait_s=10)
    assert await content(redis) == expected
    changes = await RedisItemJournal(redis).changes_of(["added", "1", "12048", "99654", "a;b"], 1.0)
    kinds = {sku: change.kind.value for sku, change in changes.items()}
    assert kinds == {"added": "put", "1": "put", "12048": "removed", "99654": "stock"}


async def test_readers_never_see_a_user_of_two_versions(
    redis: Redis, server: RedisSettings, tiny: Bundle, newer: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "BATCH", 5)
    monkeypatch.setattr(stale_keys, "SCANNED_KEYS", 20)
    async with open_redis(server) as other:
        store = RedisProfileStore(other)
        expected = {}
        for bundle in (newer, tiny):
            await seed_redis(bundle, redis, wait_s=10)
            expected[bundle.version] = await read_user_data(bundle, RedisProfileStore(redis))
        seen_versions = set()
        for bundle in (newer, tiny, newer):
            seeding = asyncio.create_task(seed_redis(bundle, redis, wait_s=10))
            while not seeding.done():
                for user_id, read_data in (await read_user_data(tiny, store)).items():
                    versions = [version for version in expected if expected[version][user_id] == read_data]
                    assert len(versions) == 1, f"user {user_id} is of neither version, or of both"
                    seen_versions.update(versions)
            await seeding
    assert seen_versions == set(expected)


class Killed(BaseException):
    """Stands for SIGKILL: the seed sends no further command."""


class HookedConnection(Connection):
    """Calls `before` ahead of each command, with the number of commands sent so far."""

    sent = 0
    before: Callable[[int], Awaitable[None]]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        await HookedConnection.before(HookedConnection.sent)
        HookedConnection.sent += 1
        await super().send_packed_command(command, check_health)


async def seed_with_hook(
    bundle: Bundle, server: RedisSettings, before: Callable[[int], Awaitable[None]]
) -> int:
    """Seed through a HookedConnection; return the number of commands sent."""
    HookedConnection.sent, HookedConnection.before = 0, before
    async with open_redis(server, connection_class=HookedConnection) as client:
        await seed_redis(bundle, client, wait_s=10)
    return HookedConnection.sent


@pytest.fixture
async def commands(
    redis: Redis, server: RedisSettings, tiny: Bundle, newer: Bundle, monkeypatch: pytest.MonkeyPatch
) -> int:
    """The number of commands that seeding `newer` over `tiny` sends, in small batches."""

    async def nothing(_: int) -> None: ...

    monkeypatch.setattr(seed, "BATCH", 50)
    monkeypatch.setattr(stale_keys, "SCANNED_KEYS", 100)
    await seed_redis(tiny, redis, wait_s=10)
    await change_items(redis)
    count = await seed_with_hook(newer, server, nothing)
    await redis.flushdb()
    return count


FEWER_COMMANDS = 4
"""Largest difference in the number of commands of two equal seeds: a scan may take fewer steps."""


async def test_killed_seed_leaves_one_complete_version_and_the_next_one_repairs_it(
    redis: Redis, server: RedisSettings, tiny: Bundle, newer: Bundle, commands: int
) -> None:
    expected, complete = {}, {}
    for bundle in (newer, tiny):
        await redis.flushdb()
        await seed_redis(bundle, redis, wait_s=10)
        expected[bundle.version] = await read_user_data(tiny, RedisProfileStore(redis))
        await change_items(redis)
        complete[bundle.version] = await content(redis)
    killed_before_switch = 0
    for point in range(commands):

        async def kill(sent: int, point: int = point) -> None:
            if sent == point:
                raise Killed

        try:
            await seed_with_hook(newer, server, kill)
        except Killed:
            pass
        else:
            assert point >= commands - FEWER_COMMANDS
            break
        store = RedisProfileStore(redis)
        live = await store.version(1.0)
        killed_before_switch += live == tiny.version
        assert live is not None
        assert await read_user_data(tiny, store) == expected[live]
        for bundle in (tiny, newer, tiny) if point % 2 else (newer, tiny):
            await seed_redis(bundle, redis, wait_s=10)
            assert await content(redis) == complete[bundle.version], f"killed before command {point}"
    assert 0 < killed_before_switch < commands


async def test_item_changes_during_a_seed_are_kept(
    redis: Redis, server: RedisSettings, tiny: Bundle, newer: Bundle, commands: int
) -> None:
    for point in range(commands):
        await redis.flushdb()
        await seed_redis(tiny, redis, wait_s=10)

        async def change(sent: int, point: int = point) -> None:
            if sent == point:
                await change_items(redis)

        if await seed_with_hook(newer, server, change) <= point:
            assert point >= commands - FEWER_COMMANDS
            break
        added, first, removed = await RedisProfileStore(redis).items(["added", "1", "12048"], 1.0)
        found = (added and added.brand, first and first.brand, removed)
        assert found == ("a", "changed", None), f"changed before command {point}"


async def test_full_store_keeps_the_previous_version_complete(
    valkey: RedisSettings, tiny: Bundle, newer: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "BATCH", 5)
    rows_written: list[int] = []
    async with open_redis(valkey) as redis:
        store = RedisProfileStore(redis)
        await seed_redis(tiny, redis, wait_s=10)
        before, user_data = await content(redis), await read_user_data(tiny, store)
        used = (await redis.info("memory"))["used_memory"]
        for free_bytes in range(0, 1_000_000, 10_000):
            advanced: list[int] = []
            await redis.config_set("maxmemory", used + free_bytes)
            try:
                await seed_redis(newer, redis, wait_s=10, advance=advanced.append)
                break
            except SeedError as error:
                assert "maxmemory" in error.text  # noqa: PT017 - the last round raises nothing
            rows_written.append(sum(advanced))
            after = await content(redis)
            assert (await store.version(1.0), await read_user_data(tiny, store)) == (
                tiny.version,
                user_data,
            )
            assert before.keys() <= after.keys()
            assert not any(newer.version in key for key in after), "records of the failed seed are left"
        assert await store.version(1.0) == newer.version
    assert len(set(rows_written)) > 3, f"refused after {rows_written} rows"


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("users", "9:1:2", "expected 7 fields id:age:sex:city_level:province:city:county, found 3"),
        ("histories", "1:99654,yesterday,2", "invalid literal"),
        ("products", "oops", "expected 4 fields sku:brand:shop:category, found 1"),
        ("products", ":3456:6980:70", "sku is empty"),
    ],
)
async def test_malformed_line_is_reported_and_previous_version_kept(
    redis: Redis,
    tiny: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    line: str,
    reason: str,
) -> None:
    monkeypatch.setattr(seed, "BATCH", 10)  # so that a reply is outstanding when the line is read
    await seed_redis(tiny, redis, wait_s=10)
    bad = as_version(edited(tiny, tmp_path, **{name: lambda lines: [*lines, line]}))
    number = bad.count(f"{name}.dat")
    with pytest.raises(BundleError, match=rf"{name}\.dat:{number}: {reason}"):
        await seed_redis(bad, redis, wait_s=10)
    assert await RedisProfileStore(redis).version(1.0) == tiny.version
    assert not [key async for key in redis.scan_iter(f"*{bad.version}")]


async def test_interrupted_seed_leaves_no_version_and_a_usable_client(
    redis: Redis, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(seed, "BATCH", 10)
    with pytest.raises(KeyboardInterrupt):
        await seed_redis(tiny, redis, wait_s=10, advance=stop)
    assert await RedisProfileStore(redis).version(1.0) is None
    assert not (await seed_redis(tiny, redis, wait_s=10)).already_there
    assert await RedisProfileStore(redis).version(1.0) == tiny.version


async def test_seeding_gives_up_on_unreachable_store(tiny: Bundle) -> None:
    async with open_redis(RedisSettings(redis_url="redis://127.0.0.1:1/0")) as client:
        with pytest.raises(Unavailable):
            await seed_redis(tiny, client, wait_s=0.3)

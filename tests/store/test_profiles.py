"""The profile store: a fake, Valkey and, if configured, Redis, all holding the same bundle."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from structlog.testing import capture_logs

from ecrs.bundle import Bundle
from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, Aggregates
from ecrs.domain.entities import Item, User
from ecrs.domain.files import parse_history, parse_item, parse_user
from ecrs.rpc.errors import DeadlineExceeded, Unavailable
from ecrs.settings import RedisSettings
from ecrs.storage.item_journal import START, ChangeKind, ItemChange
from ecrs.storage.item_writes import RECORDS, VECTORS
from ecrs.storage.profiles import ItemStore, NotSeeded
from ecrs.storage.redis_profiles import RedisProfileStore, open_redis
from ecrs_seed.redis import seed_redis
from tests.fakes import FakeProfiles, Trouble
from tests.store.conftest import REDIS_SERVERS


def products(bundle: Bundle) -> dict[str, Item]:
    """The bundle's items by sku."""
    return {item.sku: item for item in map(parse_item, bundle.lines("products.dat"))}


@pytest.fixture(params=["fake", *REDIS_SERVERS])
async def profiles(request: pytest.FixtureRequest, tiny: Bundle) -> AsyncIterator[ItemStore]:
    """A store that holds the tiny bundle."""
    if request.param == "fake":
        histories = dict(map(parse_history, tiny.lines("histories.dat")))
        users = {user.id: user for user in map(parse_user, tiny.lines("users.dat"))}
        for user_id, history in histories.items():
            users[user_id] = type(users[user_id])(
                **{name: getattr(users[user_id], name) for name in users[user_id].__slots__}
                | {"history": history}
            )
        yield FakeProfiles(users, products(tiny), tiny.version)
        return
    async with open_redis(request.getfixturevalue(request.param)) as redis:
        await redis.flushdb()
        await seed_redis(tiny, redis, wait_s=10)
        yield RedisProfileStore(redis)
        await redis.flushdb()


async def test_user_has_profile_and_history_newest_first(profiles: ItemStore) -> None:
    user = await profiles.user("1", 1.0)
    assert user is not None
    assert (user.id, user.age, user.county) == ("1", "5.0", "1933.0")
    assert len(user.history) == 50
    assert [i.ts for i in user.history] == sorted((i.ts for i in user.history), reverse=True)


async def test_unknown_user_is_none(profiles: ItemStore) -> None:
    assert await profiles.user("no such user", 1.0) is None


async def test_items_keep_requested_order_and_unknown_ones_are_none(profiles: ItemStore) -> None:
    stored = await profiles.items(["12048", "no such item", "1", "12048"], 1.0)
    assert [item and item.sku for item in stored] == ["12048", None, "1", "12048"]
    assert stored[2] == parse_item("1:3456:6980:70")


async def test_empty_request_returns_no_items(profiles: ItemStore) -> None:
    assert await profiles.items([], 1.0) == []


async def test_store_returns_version_of_its_bundle(profiles: ItemStore, tiny: Bundle) -> None:
    assert await profiles.version(1.0) == tiny.version


async def apply(profiles: ItemStore, *changes: ItemChange) -> None:
    """Apply changes as if they were the next ones in the journal."""
    after = await profiles.position(RECORDS, 1.0)
    assert await profiles.apply(RECORDS, after, f"{after}+", changes, 1.0)


async def test_put_item_is_stored_unchanged(profiles: ItemStore) -> None:
    items = [Item("new", "brand ü", "shop", "70"), Item("newer", out_of_stock=True)]
    await apply(profiles, *map(ItemChange.put, items))
    assert await profiles.items(["newer", "new"], 1.0) == items[::-1]


async def test_put_replaces_known_item(profiles: ItemStore) -> None:
    await apply(profiles, ItemChange.put(Item("12048", "another brand")))
    assert await profiles.items(["12048"], 1.0) == [Item("12048", "another brand")]


async def test_removed_item_is_unknown_and_loses_its_stock_mark(profiles: ItemStore) -> None:
    await apply(profiles, ItemChange("12048", ChangeKind.STOCK, out_of_stock=True))
    removed = [ItemChange(sku, ChangeKind.REMOVED) for sku in ("12048", "never there")]
    await apply(profiles, *removed)
    assert await profiles.items(["12048"], 1.0) == [None]
    assert await profiles.missing(["1", "12048", "never there"], 1.0) == ["12048", "never there"]
    await apply(profiles, ItemChange.put(Item("12048")))
    assert await profiles.items(["12048"], 1.0) == [Item("12048")]
    assert await profiles.missing(["12048"], 1.0) == []


async def test_stock_can_be_marked_and_unmarked(profiles: ItemStore) -> None:
    await apply(profiles, *(ItemChange(sku, ChangeKind.STOCK, True) for sku in ("12048", "1")))
    stored = await profiles.items(["12048", "99654", "1"], 1.0)
    assert [item and item.out_of_stock for item in stored] == [True, False, True]
    await apply(profiles, ItemChange("12048", ChangeKind.STOCK, out_of_stock=False))
    stored = await profiles.items(["12048", "1"], 1.0)
    assert [item and item.out_of_stock for item in stored] == [False, True]
    await apply(profiles, ItemChange.put(Item("1")))
    assert await profiles.items(["1"], 1.0) == [Item("1")]


async def test_changes_are_applied_only_at_the_position_that_they_follow(profiles: ItemStore) -> None:
    put = [ItemChange.put(Item("new"))]
    assert await profiles.position(RECORDS, 1.0) == START
    assert not await profiles.apply(RECORDS, "journal:1", "journal:2", put, 1.0)
    assert (await profiles.missing(["new"], 1.0), await profiles.position(RECORDS, 1.0)) == (["new"], START)
    assert await profiles.apply(RECORDS, START, "journal:2", put, 1.0)
    assert await profiles.position(RECORDS, 1.0) == "journal:2"
    assert not await profiles.apply(RECORDS, START, "journal:1", [ItemChange("new", ChangeKind.REMOVED)], 1.0)
    assert await profiles.missing(["new"], 1.0) == []
    assert await profiles.position(VECTORS, 1.0) == START
    await profiles.set_position(VECTORS, "journal:1", 1.0)
    assert await profiles.apply(VECTORS, "journal:1", "journal:2", [], 1.0)
    assert await profiles.position(VECTORS, 1.0) == "journal:2"


@pytest.fixture(params=["fake", *REDIS_SERVERS])
async def empty(request: pytest.FixtureRequest) -> AsyncIterator[ItemStore]:
    """A store that was read and then emptied."""
    if request.param == "fake":
        yield FakeProfiles(seeded=None)
        return
    async with open_redis(request.getfixturevalue(request.param)) as redis:
        await redis.flushdb()
        await write(redis)
        store = RedisProfileStore(redis)
        assert await store.user("1", 1.0) is not None
        await redis.flushdb()
        yield store


async def test_emptied_store_cannot_tell_which_records_are_unknown(empty: ItemStore) -> None:
    assert await empty.version(1.0) is None
    with pytest.raises(NotSeeded, match="the profile store is empty"):
        await empty.user("1", 1.0)
    with pytest.raises(NotSeeded):
        await empty.items(["1"], 1.0)


PROFILE = dict.fromkeys(("user_id", "age", "sex", "city_level", "province", "city", "country"), "1")
ITEM = {"sku_id": "1", "brand": "10", "shopid": "500", "cate": "70"}
AGGREGATES = {"sku_ids": ["1"]} | {column: [1.5] for column in AGGREGATE_COLUMNS}
VALID = {
    "1##user_info": orjson.dumps(PROFILE),
    "1##history##any": b'[["1",7,2]]',
    "1##aggregates##any": orjson.dumps(AGGREGATES),
    "1##product_info": orjson.dumps(ITEM),
    "2##product_info": orjson.dumps(ITEM | {"sku_id": "2"}),
    "ecrs##bundle": orjson.dumps({"version": "any"}),
}
USER = User(*("1",) * 7, (Interaction("1", 7, ActionType.ORDER),), Aggregates(("1",), np.full((1, 8), 1.5)))
"""The user that VALID holds."""
KEYS = {
    "profile": "1##user_info",
    "history": "1##history##any",
    "aggregates": "1##aggregates##any",
    "item": "1##product_info",
}
"""The key in VALID of each kind of record."""


async def write(redis: Redis, **values: Any) -> None:
    """Write VALID, with `values`, bytes or what they are the JSON of, in place of some kinds of records."""
    changed = {
        KEYS[record]: value if isinstance(value, bytes) else orjson.dumps(value)
        for record, value in values.items()
    }
    await redis.mset(VALID | changed)


async def assert_only_this_is_missing(redis: Redis, record: str) -> None:
    """Assert that everything in VALID can be read but `record`, and that this one is counted as malformed."""
    store, before = RedisProfileStore(redis), malformed(record)
    items, user = await store.items(["1", "2"], 1.0), await store.user("1", 1.0)
    two = Item("2", "10", "500", "70")
    assert items == [None if record == "item" else replace(two, sku="1"), two]
    match record:
        case "profile":
            assert user == User("1", history=USER.history, aggregates=USER.aggregates)
        case "history":
            assert user == replace(USER, history=())
        case "aggregates":
            assert user == replace(USER, aggregates=Aggregates())
        case _:
            assert user == USER
    assert malformed(record) == before + 1


def malformed(record: str) -> float:
    return REGISTRY.get_sample_value("ecrs_malformed_records_total", {"record": record}) or 0.0


def rows(n: int) -> dict[str, list[Any]]:
    """A stored aggregates record of `n` items."""
    skus = [str(number) for number in range(n)]
    return {"sku_ids": skus} | {column: [1.5] * n for column in AGGREGATE_COLUMNS}


DEEP = b"[" * 100_000
MALFORMED: tuple[tuple[str, Any, str], ...] = (
    *((record, b"{", "Input data was truncated|got `object`") for record in KEYS),
    *((record, b"", "Input data was truncated") for record in KEYS),
    *((record, b"\xff", "JSON is malformed") for record in KEYS),
    *((record, b"7", "Expected `.*`, got `int`") for record in KEYS),
    *((record, DEEP, "is longer than|got `array`") for record in KEYS),
    *((record, b'{"x":' + DEEP[:4000], "maximum recursion depth|got `object`") for record in KEYS),
    ("profile", b'{"user_id": "\xff"}', "Invalid UTF-8"),
    ("profile", b'{"user_id": "\\ud800 no pair"}', "utf-16 surrogate"),
    ("profile", {"user_id": "1"}, "missing required field `age`"),
    ("profile", PROFILE | {"age": 5}, r"Expected `str`, got `int` - at `\$.age`"),
    ("profile", PROFILE | {"user_id": "2"}, r"it is that of '2' - at `\$.user_id`"),
    ("profile", PROFILE | {"age": "x" * 5000}, "it is longer than 4096 bytes"),
    ("history", [["1"]], r"Expected `array` of length 3 - at `\$\[0\]`"),
    ("history", [["1", 1, 99]], r"Invalid enum value 99 - at `\$\[0\]\[2\]`"),
    ("history", [["1", -1, 1]], r"Expected `int` >= 0 - at `\$\[0\]\[1\]`"),
    ("history", [["1", 10**10, 1]], r"Expected `int` <= 9999999999 - at `\$\[0\]\[1\]`"),
    ("history", b'[["1", 1e23, 1]]', r"Expected `int`, got `float` - at `\$\[0\]\[1\]`"),
    ("history", b'[["1", 1' + b"0" * 5000 + b", 1]]", r"Integer value out of range - at `\$\[0\]\[1\]`"),
    ("history", [[1, 1, 1]], r"Expected `str`, got `int` - at `\$\[0\]\[0\]`"),
    ("history", [["ü" * 65, 1, 1]], "a sku is longer than 128 bytes"),
    ("history", [["1", 1, 1]] * 50_000, "it is longer than 65536 bytes"),
    ("aggregates", {"sku_ids": ["1"]}, "missing required field `orders`"),
    ("aggregates", AGGREGATES | {"sku_ids": [1]}, r"Expected `str`, got `int` - at `\$.sku_ids\[0\]`"),
    ("aggregates", AGGREGATES | {"sku_ids": ["x" * 129]}, "a sku is longer than 128 bytes"),
    ("aggregates", AGGREGATES | {"orders": ["x"]}, r"Expected `float`, got `str` - at `\$.orders\[0\]`"),
    ("aggregates", AGGREGATES | {"orders": [-1]}, r"-1 is impossible - at `\$.orders\[0\]`"),
    ("aggregates", AGGREGATES | {"last_order": [1e22]}, r"1e\+22 is impossible - at `\$.last_order\[0\]`"),
    ("aggregates", AGGREGATES | {"long": [1, 2]}, r"2 values, expected 1 - at `\$.long`"),
    ("aggregates", rows(2) | {"sku_ids": ["1", "1"]}, r"an item appears twice - at `\$.sku_ids`"),
    ("aggregates", orjson.dumps(AGGREGATES).replace(b"1.5", b"NaN"), "JSON is malformed"),
    ("aggregates", orjson.dumps(AGGREGATES).replace(b"1.5", b"1e999"), "Number out of range"),
    ("aggregates", rows(20_000), "it is longer than 524288 bytes"),
    ("item", {"sku_id": "1"}, "missing required field `brand`"),
    ("item", ITEM | {"sku_id": "2"}, r"it is that of '2' - at `\$.sku_id`"),
    ("item", ITEM | {"brand": "ü" * 300}, "its values are longer than 512 bytes"),
    ("item", ITEM | {"brand": "x" * 5000}, "it is longer than 4096 bytes"),
)


@pytest.mark.parametrize(
    ("record", "stored", "reason"),
    MALFORMED,
    ids=[f"{record}-{reason[:40]}" for record, _, reason in MALFORMED],
)
async def test_malformed_record_is_missing_and_all_others_are_read(
    server: RedisSettings, record: str, stored: Any, reason: str
) -> None:
    async with open_redis(server) as redis:
        await write(redis, **{record: stored})
        with capture_logs() as logs:
            await assert_only_this_is_missing(redis, record)
        name = f"record of {record}" if record == "item" else f"{record} of user"
        assert re.match(f"the stored {name} '1' is malformed: .*({reason})", logs[0]["reason"])
        await redis.flushdb()


@pytest.mark.parametrize("record", KEYS)
async def test_value_that_is_no_string_is_malformed(server: RedisSettings, record: str) -> None:
    async with open_redis(server) as redis:
        await write(redis)
        await redis.delete(KEYS[record])
        await redis.rpush(KEYS[record], "1")
        await assert_only_this_is_missing(redis, record)
        await redis.flushdb()


@pytest.mark.parametrize("record", KEYS)
async def test_overlong_value_is_not_fetched(server: RedisSettings, record: str) -> None:
    async def sent_bytes() -> int:
        return (await redis.info("stats"))["total_net_output_bytes"]

    async with open_redis(server) as redis:
        await write(redis)
        await redis.setrange(KEYS[record], 50_000_000, "x")
        before = await sent_bytes()
        await assert_only_this_is_missing(redis, record)
        assert await sent_bytes() - before < 2_000_000
        await redis.flushdb()


async def test_history_and_aggregates_are_cut_to_their_limits(server: RedisSettings) -> None:
    async with open_redis(server) as redis:
        await write(redis, history=[[str(n), 60 - n, 2] for n in range(60)], aggregates=rows(1100))
        user = await RedisProfileStore(redis).user("1", 1.0)
        assert user is not None
        assert [interaction.sku for interaction in user.history] == [str(n) for n in range(50)]
        assert user.aggregates.skus == tuple(str(n) for n in range(1000))
        assert len(user.aggregates.numbers) == 1000
        await redis.flushdb()


async def test_missing_history_and_aggregates_are_empty_and_not_malformed(server: RedisSettings) -> None:
    async with open_redis(server) as redis:
        await write(redis)
        await redis.delete(KEYS["history"], KEYS["aggregates"])
        before = malformed("history") + malformed("aggregates")
        user = await RedisProfileStore(redis).user("1", 1.0)
        assert user == replace(USER, history=(), aggregates=Aggregates())
        assert malformed("history") + malformed("aggregates") == before
        await redis.flushdb()


async def test_malformed_bundle_record_makes_the_store_unavailable(server: RedisSettings) -> None:
    async with open_redis(server) as redis:
        await write(redis)
        await redis.set("ecrs##bundle", b'{"version": 7}')
        store = RedisProfileStore(redis)
        for read in (store.version(1.0), store.user("1", 1.0), store.items(["1"], 1.0)):
            with pytest.raises(Unavailable, match=r"ecrs##bundle is malformed: Expected `str`.*\$\.version"):
                await read
        await redis.flushdb()


async def test_malformed_item_can_be_replaced(server: RedisSettings) -> None:
    async with open_redis(server) as redis:
        await write(redis, item=b"{")
        store = RedisProfileStore(redis)
        assert (await store.items(["1"], 1.0)) == [None]
        assert await store.missing(["1"], 1.0) == []  # so that it can be removed
        await apply(store, ItemChange.put(Item("1", "repaired")))
        assert (await store.items(["1"], 1.0)) == [Item("1", "repaired")]
        await redis.flushdb()


async def test_refused_command_is_unavailable_and_not_malformed(server: RedisSettings) -> None:
    async with open_redis(server) as redis:
        await write(redis)
        await redis.execute_command("ACL SETUSER reader on >reader ~* +eval_ro")
        url = server.redis_url.replace("redis://", "redis://reader:reader@")
        async with open_redis(RedisSettings(redis_url=url)) as reader:
            with pytest.raises(Unavailable, match="the profile store is unavailable"):
                await RedisProfileStore(reader).user("1", 1.0)
        await redis.execute_command("ACL DELUSER reader")
        await redis.flushdb()


async def test_records_have_keys_and_fields_of_the_original(server: RedisSettings, tiny: Bundle) -> None:
    async with open_redis(server) as redis:
        await redis.flushdb()
        await seed_redis(tiny, redis, wait_s=10)
        assert orjson.loads(await redis.get("1##user_info")) == {
            "user_id": "1", "age": "5.0", "sex": "1.0", "city_level": "5.0",
            "province": "20.0", "city": "176.0", "country": "1933.0",
        }  # fmt: skip
        assert orjson.loads(await redis.get("1##product_info")) == {
            "sku_id": "1", "brand": "3456", "shopid": "6980", "cate": "70",
        }  # fmt: skip
        assert len(orjson.loads(await redis.get(f"1##history##{tiny.version}"))) == 50
        assert len(orjson.loads(await redis.get(f"1##aggregates##{tiny.version}"))["sku_ids"]) > 1
        assert orjson.loads(await redis.get("ecrs##bundle"))["version"] == tiny.version
        await redis.flushdb()


async def test_unreachable_store_is_unavailable() -> None:
    async with open_redis(RedisSettings(redis_url="redis://127.0.0.1:1/0")) as redis:
        with pytest.raises(Unavailable, match="profile store"):
            await RedisProfileStore(redis).user("1", 1.0)
        with pytest.raises(Unavailable, match="profile store"):
            await apply(RedisProfileStore(redis), ItemChange.put(Item("new")))


async def test_hanging_store_raises_deadline_exceeded(server: RedisSettings) -> None:
    async with open_redis(server) as redis, open_redis(server) as other:
        await other.execute_command("CLIENT", "PAUSE", "1000", "ALL")
        with pytest.raises(DeadlineExceeded):
            await RedisProfileStore(redis).user("1", 0.05)


async def test_fake_store_times_out_like_the_servers() -> None:
    with pytest.raises(DeadlineExceeded):
        await FakeProfiles(trouble=Trouble(delay_s=9)).user("1", 0.01)

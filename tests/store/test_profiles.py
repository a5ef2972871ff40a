"""The profile store: a fake, Valkey and, if configured, Redis, all holding the same bundle."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from ecrs.bundle import Bundle
from ecrs.domain.aggregates import AGGREGATE_COLUMNS
from ecrs.domain.entities import Item
from ecrs.domain.files import parse_history, parse_item, parse_user
from ecrs.rpc.errors import DeadlineExceeded, MalformedData, Unavailable
from ecrs.settings import RedisSettings
from ecrs.storage.profiles import ItemStore
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


async def test_new_item_is_stored_unchanged(profiles: ItemStore) -> None:
    items = [Item("new", "brand ü", "shop", "70"), Item("newer", out_of_stock=True)]
    await profiles.put(items, 1.0)
    assert await profiles.items(["newer", "new"], 1.0) == items[::-1]


async def test_put_replaces_known_item(profiles: ItemStore) -> None:
    await profiles.put([Item("12048", "another brand")], 1.0)
    assert await profiles.items(["12048"], 1.0) == [Item("12048", "another brand")]


async def test_removed_item_is_unknown_and_loses_its_stock_mark(profiles: ItemStore) -> None:
    assert await profiles.set_stock(["12048"], in_stock=False, timeout_s=1.0) == []
    assert await profiles.remove(["12048", "never there"], 1.0) == ["never there"]
    assert await profiles.items(["12048"], 1.0) == [None]
    assert await profiles.remove(["12048"], 1.0) == ["12048"]
    await profiles.put([Item("12048")], 1.0)
    assert await profiles.items(["12048"], 1.0) == [Item("12048")]


async def test_stock_can_be_marked_and_unmarked_and_unknown_items_are_returned(profiles: ItemStore) -> None:
    skus = ["12048", "never there", "1"]
    assert await profiles.set_stock(skus, in_stock=False, timeout_s=1.0) == ["never there"]
    stored = await profiles.items(["12048", "99654", "1"], 1.0)
    assert [item and item.out_of_stock for item in stored] == [True, False, True]
    assert await profiles.set_stock(["12048"], in_stock=True, timeout_s=1.0) == []
    stored = await profiles.items(["12048", "1"], 1.0)
    assert [item and item.out_of_stock for item in stored] == [False, True]
    assert await profiles.set_stock(["never there"], in_stock=False, timeout_s=1.0) == ["never there"]
    await profiles.put([Item("1")], 1.0)
    (item,) = await profiles.items(["1"], 1.0)
    assert item is not None
    assert not item.out_of_stock


async def test_empty_store_has_no_version(server: RedisSettings) -> None:
    async with open_redis(server) as redis:
        await redis.flushdb()
        assert await RedisProfileStore(redis).version(1.0) is None


PROFILE = dict.fromkeys(("user_id", "age", "sex", "city_level", "province", "city", "country"), "1")
AGGREGATES = {"sku_ids": ["1"]} | {column: [1.5] for column in AGGREGATE_COLUMNS}
MALFORMED: tuple[tuple[str, Any, str], ...] = (
    ("user_info", b"{", "Input data was truncated"),
    ("user_info", b"\xff", "JSON is malformed"),
    ("user_info", b'{"user_id": "\xff"}', "Invalid UTF-8"),
    ("user_info", b"[" * 100_000, "Expected `object`, got `array`"),
    ("user_info", b'{"x":' + b"[" * 100_000, "maximum recursion depth exceeded"),
    ("user_info", [], "Expected `object`, got `array`"),
    ("user_info", {"user_id": "1"}, "missing required field `age`"),
    ("user_info", PROFILE | {"age": 5}, r"Expected `str`, got `int` - at `\$.age`"),
    ("history", b"[", "Input data was truncated"),
    ("history", [["1"]], r"Expected `array` of length 3 - at `\$\[0\]`"),
    ("history", [["1", 1, 99]], r"Invalid enum value 99 - at `\$\[0\]\[2\]`"),
    ("history", [["1", 10**10, 1]], r"Expected `int` <= 9999999999 - at `\$\[0\]\[1\]`"),
    ("aggregates", [], "Expected `object`, got `array`"),
    ("aggregates", {"sku_ids": ["1"]}, "missing required field `orders`"),
    ("aggregates", AGGREGATES | {"orders": ["x"]}, r"Expected `float`, got `str` - at `\$.orders\[0\]`"),
    ("aggregates", AGGREGATES | {"long": [1, 2]}, r"2 values, expected 1 - at `\$.long`"),
)


@pytest.mark.parametrize(("key", "stored", "reason"), MALFORMED)
async def test_malformed_user_raises_fault_that_names_record_and_field(
    server: RedisSettings, key: str, stored: Any, reason: str
) -> None:
    raw = stored if isinstance(stored, bytes) else orjson.dumps(stored)
    name, version = ("profile", "") if key == "user_info" else (key, "##any")
    bundle = {"ecrs##bundle": orjson.dumps({"version": "any"}), "1##user_info": orjson.dumps(PROFILE)}
    async with open_redis(server) as redis:
        await redis.mset(bundle | {f"1##{key}{version}": raw})
        with pytest.raises(MalformedData, match=f"the stored {name} of user '1' is malformed: .*{reason}"):
            await RedisProfileStore(redis).user("1", 1.0)
        await redis.flushdb()


async def test_malformed_bundle_record_raises_fault(server: RedisSettings) -> None:
    async with open_redis(server) as redis:
        await redis.set("ecrs##bundle", b'{"version": 7}')
        with pytest.raises(MalformedData, match=r"ecrs##bundle is malformed: Expected `str`.*\$\.version"):
            await RedisProfileStore(redis).version(1.0)
        await redis.flushdb()


MALFORMED_ITEMS = (b"{", b"\xff", b"[]", b"7", b'{"sku_id": "1"}', b'{"user_id": "1"}')


@pytest.mark.parametrize("content", MALFORMED_ITEMS)
async def test_malformed_item_is_unknown_and_others_are_read(server: RedisSettings, content: bytes) -> None:
    async with open_redis(server) as redis:
        store = RedisProfileStore(redis)
        await store.put([Item("1"), Item("2")], 1.0)
        await redis.set("1##product_info", content)
        assert await store.items(["1", "2"], 1.0) == [None, Item("2")]
        await store.put([Item("1", "repaired")], 1.0)
        assert await store.items(["1", "2"], 1.0) == [Item("1", "repaired"), Item("2")]
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
            await RedisProfileStore(redis).put([Item("new")], 1.0)


async def test_hanging_store_raises_deadline_exceeded(server: RedisSettings) -> None:
    async with open_redis(server) as redis, open_redis(server) as other:
        await other.execute_command("CLIENT", "PAUSE", "1000", "ALL")
        with pytest.raises(DeadlineExceeded):
            await RedisProfileStore(redis).user("1", 0.05)


async def test_fake_store_times_out_like_the_servers() -> None:
    with pytest.raises(DeadlineExceeded):
        await FakeProfiles(trouble=Trouble(delay_s=9)).user("1", 0.01)

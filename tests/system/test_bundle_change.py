"""What people changed outlives every bundle: with the next one, the former one, and without the store's data.

One run directory is used from test to test, as in a shop: each test starts the platform with another bundle.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import redis

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.recall_pb2_grpc import RecallServiceStub
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.um_pb2_grpc import UMServiceStub
from ecrs.domain.actions import ActionType
from ecrs.domain.entities import Item
from ecrs.domain.files import parse_history, parse_item, parse_user
from ecrs.ports import PORTS
from ecrs.serving.inprocess import InProcessModel
from tests.system.conftest import Up, children, ecrs
from tests.tiny import tiny_bundle

USER = "8888"
ADDED, SOLD_OUT = "added-by-the-shop", "1"


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of the same shop from another training, whose vectors differ."""
    return Bundle.open(tiny_bundle(tmp_path_factory.mktemp("retrained"), seed=2))


@pytest.fixture(scope="module")
def favourites(tiny: Bundle) -> list[Item]:
    """The items that the user bought, most often bought first."""
    history = dict(map(parse_history, tiny.lines("histories.dat")))[USER]
    items = {item.sku: item for item in map(parse_item, tiny.lines("products.dat"))}
    bought = Counter(action.sku for action in history if action.type is ActionType.ORDER)
    return [items[sku] for sku, _ in bought.most_common() if sku != SOLD_OUT]


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `ecrs item` find the platform's write token."""
    monkeypatch.setenv("ECRS_RUN_DIR", str(tmp_path))


@contextmanager
def platform(bundle: Bundle, run_dir: Path) -> Iterator[Up]:
    up = Up(bundle.path, run_dir)
    try:
        up.wait_for("up: bundle")
        yield up
    finally:
        assert up.stop() == 0


def recommended() -> set[str]:
    with grpc.insecure_channel(f"127.0.0.1:{PORTS['gateway']}") as channel:
        reply = ASServiceStub(channel).as_call(ASRequest(user_id=USER), timeout=5)
    assert not reply.degraded
    return {info.sku_id for info in reply.item_infos}


def cold_start_score(sku: str) -> float:
    """Return recall's score of an added item, which depends on its vector."""
    with (
        grpc.insecure_channel(f"127.0.0.1:{PORTS['um']}") as um,
        grpc.insecure_channel(f"127.0.0.1:{PORTS['recall']}") as recall,
    ):
        user = UMServiceStub(um).um_call(UserModelRequest(user_id=USER), timeout=5).user_info
        request = RecallRequest(user_info=user, recall_type="vector", request_num=1000)
        reply = RecallServiceStub(recall).recall(request, timeout=5)
    return {pair.nid: pair.score for pair in reply.score_pairs}[sku]


def distance(bundle: Bundle, item: Item) -> float:
    """Return the squared distance of the bundle's vectors of the user and the item."""
    history = dict(map(parse_history, bundle.lines("histories.dat")))
    user = next(user for user in map(parse_user, bundle.lines("users.dat")) if user.id == USER)
    vectors = []
    for tower, ids in (
        ("user_tower", bundle.encoder.users([replace(user, history=history[USER])])),
        ("item_tower", bundle.encoder.items([item])),
    ):
        vectors.append(InProcessModel(bundle.path / tower).run(ids)[0])
    return float(np.square(vectors[0] - vectors[1]).sum())


def assert_changes_hold(bundle: Bundle, favourites: list[Item]) -> None:
    removed, like = favourites[0], favourites[1]
    for sku, code in ((ADDED, 200), (removed.sku, 500), (SOLD_OUT, 200)):
        assert f"code: {code}" in ecrs("cm", sku).stdout, sku
    assert "out_of_stock: true" in ecrs("cm", SOLD_OUT, "--full").stdout
    found = recommended()
    assert ADDED in found
    assert removed.sku not in found
    assert SOLD_OUT not in found
    added = Item(ADDED, like.brand, like.shop, like.category)
    assert cold_start_score(ADDED) == pytest.approx(distance(bundle, added), abs=1e-4)


def test_item_changes_hold_with_every_later_and_former_bundle(
    tiny: Bundle, retrained: Bundle, favourites: list[Item], tmp_path: Path
) -> None:
    removed, like = favourites[0], favourites[1]
    with platform(tiny, tmp_path):
        assert {removed.sku, SOLD_OUT} <= recommended()
        assert ecrs("item", "add", ADDED, like.brand, like.shop, like.category).returncode == 0
        assert ecrs("item", "remove", removed.sku).returncode == 0
        assert ecrs("item", "stock", SOLD_OUT, "--out").returncode == 0
        assert_changes_hold(tiny, favourites)
    for bundle in (retrained, tiny):
        with platform(bundle, tmp_path):
            assert_changes_hold(bundle, favourites)


def test_item_changes_survive_a_flushed_store_and_kill_9_of_everything(
    tiny: Bundle, favourites: list[Item], tmp_path: Path
) -> None:
    removed, like = favourites[0], favourites[1]
    up = Up(tiny.path, tmp_path)
    try:
        up.wait_for("up: bundle")
        environment = Path(f"/proc/{children(tmp_path)['um']}/environ").read_text()
        url = dict(pair.partition("=")[::2] for pair in environment.split("\0"))["ECRS_REDIS_URL"]
        assert ecrs("item", "remove", removed.sku).returncode == 0
        assert ecrs("item", "stock", SOLD_OUT, "--out").returncode == 0
        assert ecrs("item", "add", ADDED, like.brand, like.shop, like.category).returncode == 0
        with redis.Redis.from_url(url) as store:
            store.flushall()
    finally:
        up.process.kill()
        up.process.wait(10)
    with platform(tiny, tmp_path):
        assert_changes_hold(tiny, favourites)


def test_a_damaged_journal_ends_the_start_in_one_line(tiny: Bundle, tmp_path: Path) -> None:
    with platform(tiny, tmp_path):
        assert ecrs("item", "remove", "12048").returncode == 0
    journal = tmp_path / "items.sqlite"
    content = journal.read_bytes()
    journal.write_bytes(b"x" * len(content))
    done = ecrs("up", str(tiny.path), "--run-dir", str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ecrs: the item journal {journal} is damaged (file is not a database): ")
    journal.unlink()
    with platform(tiny, tmp_path):
        assert "code: 200" in ecrs("as", USER).stdout


def test_a_malformed_entry_of_the_journal_is_left_out(tiny: Bundle, tmp_path: Path) -> None:
    with platform(tiny, tmp_path):
        assert ecrs("item", "remove", "12048").returncode == 0
        assert ecrs("item", "add", "odd", "1", "2", "3").returncode == 0
    with sqlite3.connect(tmp_path / "items.sqlite") as connection:
        connection.execute("UPDATE item SET kind = 'sold' WHERE sku = 'odd'")
    with platform(tiny, tmp_path):
        assert "code: 500" in ecrs("cm", "12048").stdout
        assert ecrs("health").returncode == 0

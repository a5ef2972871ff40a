"""Items are added, marked out of stock and removed while the platform runs; the changes survive restarts."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import CMRequest
from ecrs.contract.cm_pb2_grpc import CMServiceStub
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.recall_pb2_grpc import RecallServiceStub
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.um_pb2_grpc import UMServiceStub
from ecrs.domain.actions import ActionType
from ecrs.domain.entities import Item
from ecrs.domain.files import parse_history, parse_item
from ecrs.ports import PORTS
from tests.eventually import within
from tests.system.conftest import Up, children, ecrs

USER = "8888"


class Platform:
    """Queries to the services of the running platform."""

    def __init__(self) -> None:
        self.channels = {name: grpc.insecure_channel(f"127.0.0.1:{port}") for name, port in PORTS.items()}
        um = UMServiceStub(self.channels["um"])
        self.user = um.um_call(UserModelRequest(user_id=USER), timeout=5).user_info

    def recalled(self) -> set[str]:
        stub = RecallServiceStub(self.channels["recall"])
        reply = stub.recall(RecallRequest(user_info=self.user), timeout=5, wait_for_ready=True)
        return {pair.nid for pair in reply.score_pairs}

    def recommended(self) -> set[str]:
        reply = ASServiceStub(self.channels["gateway"]).as_call(ASRequest(user_id=USER), timeout=5)
        return {info.sku_id for info in reply.item_infos}

    def has_item(self, sku: str) -> bool:
        reply = CMServiceStub(self.channels["cm"]).cm_call(CMRequest(item_ids=[sku]), timeout=5)
        return reply.error.code == 200


@pytest.fixture(autouse=True)
def run_dir(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `ecrs item` find the platform's write token."""
    monkeypatch.setenv("ECRS_RUN_DIR", str(up.run_dir))


@pytest.fixture(scope="module")
def platform(up: Up) -> Iterator[Platform]:
    platform = Platform()
    yield platform
    for channel in platform.channels.values():
        channel.close()


@pytest.fixture(scope="module")
def favourite(tiny: Bundle) -> Item:
    """The item that the user bought most often."""
    history = dict(map(parse_history, tiny.lines("histories.dat")))[USER]
    items = {item.sku: item for item in map(parse_item, tiny.lines("products.dat"))}
    bought = Counter(action.sku for action in history if action.type is ActionType.ORDER)
    return items[bought.most_common(1)[0][0]]


def add(sku: str, like: Item) -> None:
    done = ecrs("item", "add", sku, like.brand, like.shop, like.category)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 product added\n", "")


def kill_and_wait_for_restart(up: Up, name: str) -> None:
    """Kill a child process and wait until the platform has restarted it and serves again."""
    os.kill(children(up.run_dir)[name], signal.SIGKILL)
    up.wait_for(f"{name} ended with -9; restarting it")
    within(30, lambda: ecrs("health").returncode == 0)


def test_a_new_item_is_recalled_within_a_second(platform: Platform, favourite: Item) -> None:
    assert "brand-new" not in platform.recalled()
    add("brand-new", favourite)
    within(1.0, lambda: "brand-new" in platform.recalled())
    within(1.0, lambda: "brand-new" in platform.recommended())
    assert platform.has_item("brand-new")


def test_an_item_of_unknown_brand_shop_and_category_is_accepted(platform: Platform) -> None:
    done = ecrs("item", "add", "strange", "-1", "no such shop", "no such category")
    assert (done.returncode, done.stdout) == (0, "1 product added\n")
    assert platform.has_item("strange")


def test_a_file_of_items_is_added_in_batches(platform: Platform, favourite: Item, tmp_path: Path) -> None:
    tail = f"{favourite.brand}:{favourite.shop}:{favourite.category}"
    file = tmp_path / "products.dat"
    skus = [f"from-file-{n}" for n in range(1500)]
    file.write_text("\n".join(f"{sku}:{tail}" for sku in skus) + "\n\n")
    done = ecrs("item", "add", "--file", str(file))
    assert (done.returncode, done.stdout) == (0, "1,500 products added\n")
    assert platform.has_item("from-file-0")
    assert platform.has_item("from-file-1499")
    assert ecrs("item", "remove", *skus).stdout == "1,500 products removed\n"
    assert not platform.has_item("from-file-1499")


def test_item_changes_survive_restarts_of_recall_and_the_store(
    up: Up, platform: Platform, favourite: Item
) -> None:
    add("kept", favourite)
    add("removed", favourite)
    assert ecrs("item", "remove", "removed").returncode == 0
    for child in ("recall", "valkey"):
        kill_and_wait_for_restart(up, child)
        within(5, lambda: "kept" in platform.recalled())
        assert "removed" not in platform.recalled()
        assert platform.has_item("kept")
        assert not platform.has_item("removed")
    assert "kept" in platform.recommended()


def test_an_item_out_of_stock_is_not_recommended_until_it_is_back(
    platform: Platform, favourite: Item
) -> None:
    sku = favourite.sku
    assert sku in platform.recommended()
    done = ecrs("item", "stock", sku, "--out")
    assert (done.returncode, done.stdout) == (0, "1 product marked out of stock\n")
    assert sku not in platform.recommended()
    assert sku in platform.recalled()
    assert ecrs("item", "stock", sku, "--in").stdout == "1 product marked in stock\n"
    assert sku in platform.recommended()


def test_a_removed_item_is_unknown_and_can_be_added_again(platform: Platform, favourite: Item) -> None:
    done = ecrs("item", "remove", favourite.sku)
    assert (done.returncode, done.stdout) == (0, "1 product removed\n")
    assert favourite.sku not in platform.recommended()
    assert not platform.has_item(favourite.sku)
    add(favourite.sku, favourite)
    assert favourite.sku in platform.recommended()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("add", "1", "2"), "give either SKU BRAND SHOP CATEGORY or --file"),
        (("add", "a;b", "1", "2", "3"), "sku 'a;b': it holds a control character or one of ',:;'"),
        (("add", "--file", "/nowhere"), "/nowhere: No such file or directory"),
        (("remove", "never there"), "0 products removed, 1 unknown: never there"),
        (("stock", "never there", "--out"), "0 products marked out of stock, 1 unknown: never there"),
    ],
)
def test_a_command_that_fails_prints_one_line(up: Up, arguments: tuple[str, ...], reason: str) -> None:
    done = ecrs("item", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert reason in line


def test_an_invalid_line_of_a_file_is_named_and_nothing_is_added(platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "products.dat"
    for bad, reason in (("oops", "expected 4 fields"), ("first:1:2:3", "appears twice")):
        file.write_text(f"first:1:2:3\n{bad}\n")
        done = ecrs("item", "add", "--file", str(file))
        assert done.returncode == 1
        assert f"{file}:2: " in done.stderr
        assert reason in done.stderr
        assert not platform.has_item("first")


def test_without_the_platforms_write_token_nothing_is_changed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ECRS_RUN_DIR", str(tmp_path))
    done = ecrs("item", "add", "of-a-stranger", "1", "2", "3")
    assert (done.returncode, "the write token is missing" in done.stderr) == (1, True)
    monkeypatch.setenv("ECRS_WRITE_TOKEN", "guessed")
    done = ecrs("item", "add", "of-a-stranger", "1", "2", "3")
    assert (done.returncode, "the write token is not the one" in done.stderr) == (1, True)
    assert not platform.has_item("of-a-stranger")


def test_only_the_writing_services_have_the_token_and_only_the_owner_can_read_it(up: Up) -> None:
    path = up.run_dir / "write_token"
    assert path.stat().st_mode & 0o777 == 0o600
    for name, pid in children(up.run_dir).items():
        environment = Path(f"/proc/{pid}/environ").read_text()
        assert (path.read_text() in environment) == (name in ("cm", "recall")), name


def test_a_stopped_platform_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECRS_CM_TARGET", "127.0.0.1:1")
    done = ecrs("item", "remove", "1")
    assert (done.returncode, done.stderr) == (1, "ecrs: no answer from cm at 127.0.0.1:1: UNAVAILABLE\n")

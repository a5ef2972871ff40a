"""Start and stop of the embedded platform: clean, killed, twice, on occupied ports, with bad bundles."""

import json
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from ecrs.bundle import Bundle
from ecrs.local.processes import start_time
from ecrs.ports import METRICS_OFFSET, PORTS
from tests.bench.grow import grow
from tests.store_digest import digest, records
from tests.system.conftest import Up, children, ecrs


def alive(pid: int) -> bool:
    return start_time(pid) is not None


def wait_until_gone(pids: list[int], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, f"still alive: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.05)


def test_ctrl_c_stops_everything_and_a_second_start_seeds_nothing(tiny: Bundle, tmp_path: Path) -> None:
    first = Up(tiny.path, tmp_path)
    try:
        assert "rows in" in first.wait_for("redis: version")
        first.wait_for("up: bundle")
        pids = list(children(tmp_path).values())
        assert len(pids) == len(PORTS) + 1
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(30) == 0
        assert first.lines[-1] == "stopped"
        assert not any(map(alive, pids))
    finally:
        first.stop()

    second = Up(tiny.path, tmp_path)
    try:
        assert "is already loaded" in second.wait_for("redis: version")
        second.wait_for("up: bundle")
        assert not any("cleanly" in line for line in second.lines)
    finally:
        assert second.stop() == 0


def test_a_new_bundle_replaces_the_old_one_and_item_changes_are_kept(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECRS_RUN_DIR", str(tmp_path))
    smaller = grow(tiny, 200, tmp_path / "bundles")
    dropped = Bundle.open(tiny.path).catalogue.skus[-1]
    first = Up(tiny.path, tmp_path)
    try:
        first.wait_for("up: bundle")
        assert ecrs("item", "add", "of-the-shop", "1", "2", "3").returncode == 0
        assert ecrs("item", "remove", "12048").returncode == 0
        assert "code: 200" in ecrs("cm", dropped).stdout
    finally:
        assert first.stop() == 0

    second = Up(smaller, tmp_path)
    try:
        assert second.wait_for("redis: version").endswith(" stale keys removed")
        second.wait_for("up: bundle")
        for sku, code in (("of-the-shop", 200), ("1", 200), ("12048", 500), (dropped, 500)):
            assert f"code: {code}" in ecrs("cm", sku).stdout, sku
        assert "code: 200" in ecrs("as", "8888").stdout
    finally:
        assert second.stop() == 0


def test_kill_9_leaves_no_process_and_the_next_start_reports_it(tiny: Bundle, tmp_path: Path) -> None:
    first = Up(tiny.path, tmp_path)
    first.wait_for("up: bundle")
    pids = list(children(tmp_path).values())
    first.process.kill()
    first.process.wait(10)
    wait_until_gone(pids)

    second = Up(tiny.path, tmp_path)
    try:
        second.wait_for("did not stop cleanly last time")
        second.wait_for("up: bundle")
    finally:
        assert second.stop() == 0


def test_a_start_ends_leftover_children_and_no_other_process(tiny: Bundle, tmp_path: Path) -> None:
    """One child outlived its parent, and another child's pid now belongs to a different process."""
    first = Up(tiny.path, tmp_path)
    first.wait_for("up: bundle")
    pids = children(tmp_path)
    os.kill(pids["um"], signal.SIGSTOP)  # so that it cannot react to the death of its parent
    first.process.kill()
    first.process.wait(10)
    wait_until_gone([pid for name, pid in pids.items() if name != "um"])
    state = json.loads((tmp_path / "children.json").read_text())
    state["reused_pid"] = {"pid": os.getpid(), "started": 1}
    (tmp_path / "children.json").write_text(json.dumps(state))

    second = Up(tiny.path, tmp_path)
    try:
        assert second.wait_for("did not stop cleanly").endswith("ending um")
        second.wait_for("up: bundle")
        assert not alive(pids["um"])
    finally:
        assert second.stop() == 0


def test_a_child_that_dies_is_restarted(tiny: Bundle, tmp_path: Path) -> None:
    up = Up(tiny.path, tmp_path)
    try:
        up.wait_for("up: bundle")
        os.kill(children(tmp_path)["um"], signal.SIGKILL)
        up.wait_for("um ended with -9; restarting it")
        deadline = time.monotonic() + 30
        while ecrs("health").returncode != 0:
            assert time.monotonic() < deadline
        assert "code: 200" in ecrs("as", "8888").stdout
    finally:
        assert up.stop() == 0


def test_a_killed_store_loses_no_data(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECRS_RUN_DIR", str(tmp_path))
    up = Up(tiny.path, tmp_path)
    try:
        up.wait_for("up: bundle")
        assert ecrs("item", "add", "put-just-now", "1", "2", "3").returncode == 0
        environment = Path(f"/proc/{children(tmp_path)['um']}/environ").read_text()
        url = dict(pair.partition("=")[::2] for pair in environment.split("\0"))["ECRS_REDIS_URL"]
        with redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.2), 50)) as store:
            before = digest(records(store))
            os.kill(children(tmp_path)["valkey"], signal.SIGKILL)
            up.wait_for("valkey ended with -9; restarting it")
            assert digest(records(store)) == before
        assert before[0] > tiny.count("products.dat") + tiny.count("users.dat")
    finally:
        assert up.stop() == 0


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 in /proc/net/tcp and tcp6."""


def listening_addresses() -> dict[int, str]:
    """Return the address on which each TCP port of this machine listens."""
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    fields = [line.split() for table in tables for line in table]
    listening = [own.split(":") for _, own, _, state, *_ in fields if state == "0A"]
    return {int(port, 16): address for address, port in listening}


def test_other_users_of_the_machine_get_neither_files_nor_foreign_ports(tiny: Bundle, tmp_path: Path) -> None:
    """Also in a run directory of a former version, and with a container's settings in the environment."""
    run_dir = tmp_path / "run"
    (run_dir / "log").mkdir(parents=True, mode=0o755)
    (run_dir / "log" / "um.log").touch(mode=0o644)
    up = Up(tiny.path, run_dir, {"ECRS_HOST": "0.0.0.0", "ECRS_PORT": "8930", "ECRS_METRICS_PORT": "1"})  # noqa: S104
    try:
        up.wait_for("ECRS_HOST=0.0.0.0 is ignored")
        up.wait_for("ECRS_PORT=8930 is ignored")
        up.wait_for("up: bundle")
        assert ecrs("health").returncode == 0
        ports = [port + offset for port in PORTS.values() for offset in (0, METRICS_OFFSET)]
        addresses = listening_addresses()
        assert {addresses[port] for port in ports} <= LOOPBACK
        paths = [run_dir, *run_dir.rglob("*")]
        assert {"valkey", "children.json", "gateway.log"} <= {path.name for path in paths}
        assert [path for path in paths if path.stat().st_mode & 0o077 and not path.is_socket()] == []
    finally:
        assert up.stop() == 0


def test_damaged_store_is_named_and_repaired(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECRS_RUN_DIR", str(tmp_path))
    first = Up(tiny.path, tmp_path)
    try:
        first.wait_for("up: bundle")
        assert ecrs("item", "add", "before", "1", "2", "3").returncode == 0
        (commands,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
        size = commands.stat().st_size
        assert ecrs("item", "add", "after", "1", "2", "3").returncode == 0
    finally:
        assert first.stop() == 0
    with open(commands, "r+b") as file:
        file.seek(size + 3)
        file.write(b"\0garbage")

    done = ecrs("up", str(tiny.path))
    assert done.returncode == 1
    assert f"{commands} is damaged after {size:,} of" in done.stderr
    assert "`ecrs repair` repairs it" in done.stderr
    assert "Bad file format reading the append only file" in done.stderr
    assert "Traceback" not in done.stderr
    repaired = ecrs("repair")
    assert (repaired.returncode, repaired.stderr) == (0, "")

    second = Up(tiny.path, tmp_path)
    try:
        assert "is already loaded" in second.wait_for("redis: version")
        second.wait_for("up: bundle")
        for sku in ("before", "after"):  # the journal of item changes has what the store lost
            assert "code: 200" in ecrs("cm", sku).stdout
    finally:
        assert second.stop() == 0


def test_service_that_cannot_start_is_reported_with_the_end_of_its_log(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECRS_ITEM_AGE_S", "-1")
    done = ecrs("up", str(tiny.path), "--run-dir", str(tmp_path))
    assert done.returncode == 1
    # It may end once more before the count is looked at.
    log = re.escape(f"{tmp_path}/log/cm.log")
    assert re.search(rf"ecrs: cm ended [34] times, with 1; {log} ends with\n", done.stderr)
    assert "Input should be greater than or equal to 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "write_token").exists()


def test_a_second_start_is_refused_in_one_line(tiny: Bundle, tmp_path: Path) -> None:
    up = Up(tiny.path, tmp_path)
    try:
        up.wait_for("up: bundle")
        second = ecrs("up", str(tiny.path), "--run-dir", str(tmp_path))
        assert second.returncode == 1
        assert "the platform is already running" in second.stderr
        assert "Traceback" not in second.stderr
    finally:
        assert up.stop() == 0


def test_an_occupied_port_is_named(tiny: Bundle, tmp_path: Path) -> None:
    with socket.socket() as occupied:
        occupied.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        occupied.bind(("127.0.0.1", PORTS["cm"]))
        occupied.listen()
        done = ecrs("up", str(tiny.path), "--run-dir", str(tmp_path))
    assert done.returncode == 1
    assert "port 8920 (cm) is in use" in done.stderr


def test_a_missing_bundle_is_reported_with_its_path(tmp_path: Path) -> None:
    done = ecrs("up", str(tmp_path / "nowhere"), "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 1
    assert f"no bundle at {tmp_path / 'nowhere'}" in done.stderr


@pytest.mark.parametrize("file", ["ranker/inference.pdiparams", "vocabulary/brand.txt"])
def test_a_bundle_file_with_one_changed_byte_is_refused_and_named(
    tiny: Bundle, tmp_path: Path, file: str
) -> None:
    damaged = tmp_path / "bundle"
    shutil.copytree(tiny.path, damaged)
    content = bytearray((damaged / file).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / file).write_bytes(content)
    done = ecrs("up", str(damaged), "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 1
    assert file in done.stderr
    assert "sha256" in done.stderr


@pytest.mark.parametrize(
    ("store", "setting", "reason"),
    [
        ("redis", {"ECRS_REDIS_URL": "redis://127.0.0.1:1/0"}, "ecrs: ConnectionError"),
        ("milvus", {"ECRS_VECTORS": "milvus://127.0.0.1:1"}, "ecrs: MilvusException"),
        ("milvus", {"ECRS_VECTORS": "faiss"}, "ecrs: ECRS_VECTORS is 'faiss'"),
    ],
)
def test_a_store_that_cannot_be_seeded_is_reported_in_one_line(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, store: str, setting: dict[str, str], reason: str
) -> None:
    for name, value in {"ECRS_BUNDLE": str(tiny.path), **setting}.items():
        monkeypatch.setenv(name, value)
    done = ecrs("seed", store, "--wait-s", "0.5")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(reason)
    assert "Traceback" not in done.stderr

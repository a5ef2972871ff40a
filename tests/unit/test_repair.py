"""`ecrs repair` on the data of a real Valkey, damaged in different ways."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from ecrs.local.errors import StartError
from ecrs.local.repair import repair_store
from ecrs.local.run_directory import locked_run_directory
from ecrs.local.valkey import find_damage, valkey_command

KEYS = 200


@contextmanager
def valkey(run_dir: Path) -> Iterator[redis.Redis]:
    """Run Valkey on the data in the run directory."""
    socket = run_dir / "socket"
    process = subprocess.Popen(valkey_command(run_dir, str(socket)), stdout=subprocess.DEVNULL)
    try:
        retry = Retry(ConstantBackoff(0.05), 100)
        errors = [RedisConnectionError, FileNotFoundError]
        with redis.Redis(unix_socket_path=str(socket), retry=retry, retry_on_error=errors) as store:
            store.ping()
            yield store
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run directory whose store has keys."""
    with valkey(tmp_path) as store:
        for number in range(KEYS):
            store.set(f"key-{number}", number)
    return tmp_path


def commands(run_dir: Path) -> Path:
    return next(run_dir.glob("valkey/appendonlydir/*.incr.aof"))


def overwrite_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = b"\0garbage"
    path.write_bytes(content)


def repair(run_dir: Path, *, afresh: bool = False) -> list[str]:
    lines: list[str] = []
    repair_store(run_dir, lines.append, afresh=afresh)
    return lines


def test_data_in_order_are_left_as_they_are(run_dir: Path) -> None:
    before = commands(run_dir).read_bytes()
    assert repair(run_dir) == [f"the store's data in {run_dir}/valkey are not damaged"]
    assert commands(run_dir).read_bytes() == before


def test_damaged_commands_are_cut_off_after_a_copy_was_made(run_dir: Path) -> None:
    overwrite_middle(commands(run_dir))
    damaged = commands(run_dir).read_bytes()
    assert find_damage(run_dir) is not None
    (line,) = repair(run_dir)
    assert f"{commands(run_dir)} is damaged after " in line
    (copy,) = run_dir.glob("valkey.damaged-*")
    assert (copy / "appendonlydir" / commands(run_dir).name).read_bytes() == damaged
    with valkey(run_dir) as store:
        keys = store.dbsize()
        assert KEYS // 3 < keys < KEYS * 2 // 3
        assert store.get(f"key-{keys - 1}") == b"%d" % (keys - 1)
    assert find_damage(run_dir) is None


@pytest.mark.parametrize("file", ["*.base.rdb", "*.manifest"])
def test_data_that_cannot_be_repaired_are_only_moved_aside_on_demand(run_dir: Path, file: str) -> None:
    (path,) = (run_dir / "valkey" / "appendonlydir").glob(file)
    overwrite_middle(path)
    if file == "*.manifest":
        path.write_text("nothing that Valkey reads")
    with pytest.raises(StartError, match=r"cannot be repaired\. `ecrs repair --afresh` moves"):
        repair(run_dir)
    assert path.exists()
    (line,) = repair(run_dir, afresh=True)
    assert line.startswith(f"moved the store's data to {run_dir}/valkey.damaged-")
    with valkey(run_dir) as store:
        assert store.dbsize() == 0


def test_store_of_a_running_platform_is_not_touched(run_dir: Path) -> None:
    with (
        locked_run_directory(run_dir),
        pytest.raises(StartError, match="the platform is already running"),
    ):
        repair(run_dir)


def test_missing_run_directory_is_reported_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="there is no run directory"):
        repair(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []

"""Processes of the embedded profile: starting, restarting and detecting them, and ending leftover ones."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from ecrs.local.errors import StartError
from ecrs.local.leftovers import end_leftovers
from ecrs.local.processes import ChildProcesses, RestartDelay, start_time, state_path
from ecrs.local.run_directory import locked_run_directory
from ecrs.rpc.errors import Unavailable
from tests.eventually import eventually
from tests.small_disk import Disk

EXIT_FIRST_THREAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # the exit system call ends this thread only
"""


def test_process_is_alive_until_its_last_thread_ends() -> None:
    """A killed process shows as a zombie while its threads still hold its ports."""
    process = subprocess.Popen([sys.executable, "-c", EXIT_FIRST_THREAD], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 10
        while "Z" not in (state := Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2]):
            assert time.monotonic() < deadline, f"the first thread is still running:{state}"
            time.sleep(0.01)
        assert start_time(process.pid) is not None
    finally:
        process.kill()
        process.communicate(timeout=10)
    assert start_time(process.pid) is None


@pytest.mark.parametrize("started", [None, 1], ids=["ended before the file was written", "ended later"])
async def test_ended_leftovers_are_not_waited_for(tmp_path: Path, started: int | None) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    state_path(tmp_path).write_text(json.dumps({"um": {"pid": ended.pid, "started": started}}))
    lines: list[str] = []
    started_at = time.monotonic()
    await end_leftovers(tmp_path, lines.append)
    assert time.monotonic() - started_at < 1.0
    assert lines == ["the platform did not stop cleanly last time"]
    assert not state_path(tmp_path).exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"7", b"[]", b"{", b"\xff", b'{"um": 3}', b'{"um": {}}', b'{"um": {"pid": "1", "started": 1}}'],
)
async def test_state_file_of_another_shape_is_removed(tmp_path: Path, content: bytes) -> None:
    state_path(tmp_path).write_bytes(content)
    lines: list[str] = []
    await end_leftovers(tmp_path, lines.append)
    assert lines == ["the platform did not stop cleanly last time"]
    assert not state_path(tmp_path).exists()


def test_restart_delay_grows_and_is_short_again_after_a_healthy_minute() -> None:
    delay = RestartDelay()
    assert [delay.after(ran_s=1.0) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert [delay.after(ran_s=59.0), delay.after(ran_s=60.0), delay.after(ran_s=1.0)] == [5.0, 0.2, 0.4]


def quick_script(tmp_path: Path) -> Path:
    """A program of which a child process can be made, and that can be removed."""
    script = tmp_path / "child"
    script.write_text("#!/bin/sh\necho started\nexec sleep 60\n")
    script.chmod(0o700)
    return script


async def test_child_that_cannot_be_started_again_is_started_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.rpc.supervision.RESTART_DELAY_S", 0.01)
    monkeypatch.setattr(RestartDelay, "LONGEST_S", 0.02)
    script, lines = quick_script(tmp_path), list[str]()
    children = ChildProcesses(tmp_path, lines.append)
    try:
        await children.start("um", [str(script)], os.environ)
        first = children.processes["um"].pid
        script.rename(tmp_path / "away")
        os.kill(first, signal.SIGKILL)

        async def was_tried_twice() -> bool:
            return len(lines) >= 2

        with structlog.testing.capture_logs() as logged:
            await eventually(was_tried_twice)
        assert ("background task failed", "um") in [(line["event"], line["task"]) for line in logged]
        (tmp_path / "away").rename(script)

        async def runs_again() -> bool:
            pid = children.processes["um"].pid
            return pid != first and start_time(pid) is not None

        await eventually(runs_again)

        async def is_recorded() -> bool:
            return json.loads(state_path(tmp_path).read_text())["um"]["pid"] == children.processes["um"].pid

        await eventually(is_recorded)
    finally:
        await children.stop()
    assert lines[0].startswith("um ended with -9; restarting it in ")


async def test_neither_log_nor_state_file_is_needed_to_start_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.local.processes.STATE_RETRY_S", 0.01)
    (tmp_path / "log").write_text("not a directory")
    draft = tmp_path / ".children.json"
    draft.mkdir()  # so that the file cannot be written
    lines: list[str] = []
    children = ChildProcesses(tmp_path, lines.append)
    try:
        await children.start("um", ["sleep", "60"], os.environ)
        pid = children.processes["um"].pid
        assert start_time(pid) is not None

        async def is_reported() -> bool:
            return len(lines) == 2

        await eventually(is_reported)
        draft.rmdir()

        async def is_written() -> bool:
            return state_path(tmp_path).exists() and json.loads(state_path(tmp_path).read_text()) != {}

        await eventually(is_written)
    finally:
        await children.stop()
    assert sorted(lines) == [
        f"{tmp_path}/children.json cannot be written: Is a directory",
        f"{tmp_path}/log/um.log cannot be opened: File exists",
    ]


async def test_child_that_keeps_ending_at_the_start_is_reported_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RestartDelay, "FIRST_S", 0.01)

    async def is_away() -> None:
        raise Unavailable("it does not answer")

    children = ChildProcesses(tmp_path, lambda line: None)
    try:
        await children.start("um", ["sh", "-c", "echo one; echo; echo two >&2; exit 7"], os.environ)
        with pytest.raises(StartError) as caught:
            await children.wait_until_ready("um", is_away)
    finally:
        await children.stop()
    first, *log = str(caught.value).splitlines()
    assert re.fullmatch(rf"um ended \d times, with 7; {tmp_path}/log/um\.log ends with", first)
    assert log[1:] == ["    one", "    two"]
    # gRPC in the process of the tests can print an error into a child's log when it forks.
    assert log[0] == "    two" or "ev_epoll1_linux" in log[0]


def test_run_directory_is_made_private(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "log").mkdir(parents=True, mode=0o755)
    (run_dir / "log" / "um.log").touch(mode=0o644)
    (run_dir / "outside").symlink_to(tmp_path)
    before = tmp_path.stat().st_mode
    with locked_run_directory(run_dir):
        modes = {path.name: path.stat().st_mode & 0o777 for path in (run_dir, *run_dir.rglob("*.log"))}
        assert modes == {"run": 0o700, "um.log": 0o600}
        assert {path.name: path.lstat().st_mode & 0o77 for path in run_dir.iterdir()} == {
            "log": 0, "lock": 0, "outside": 0o77,
        }  # fmt: skip
    assert tmp_path.stat().st_mode == before


def test_run_directory_that_cannot_be_used_is_reported_with_the_reason(tmp_path: Path, disk: Disk) -> None:
    full_name = tmp_path / "file"
    full_name.touch()
    with pytest.raises(StartError, match=f"the run directory cannot be used: {full_name}: File exists"):
        locked_run_directory(full_name).__enter__()
    read_only = disk(64)
    subprocess.run(["mount", "-o", "remount,ro", str(read_only)], check=True)
    with pytest.raises(StartError, match=f"{read_only}: Read-only file system"):
        locked_run_directory(read_only).__enter__()
    other = tmp_path / "other"
    other.mkdir()
    os.chown(other, 10001, 10001)
    with pytest.raises(StartError, match=r"it belongs to another user \(uid 10001\)"):
        locked_run_directory(other).__enter__()

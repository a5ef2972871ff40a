"""Processes of the embedded profile: detecting live ones, and ending those left by an earlier run."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecrs.local.leftovers import end_leftovers
from ecrs.local.processes import start_time, state_path

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

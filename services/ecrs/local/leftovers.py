"""Ends child processes that were left running when the platform did not stop cleanly."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec

from ecrs.local.processes import STOP_LIMIT_S, Say, start_time, state_path

POLL_S = 0.1


class RecordedChild(msgspec.Struct):
    """A child process in the state file. One without a start time had ended when the file was written."""

    pid: int
    started: int | None


async def end_leftovers(run_dir: Path, say: Say) -> None:
    """End the processes in the state file by SIGTERM, then SIGKILL, and remove the file.

    Does nothing without a state file, and only removes one that cannot be parsed. Process ids are reused, so
    a process is only ended if its start time is the one in the file.
    """
    try:
        content = state_path(run_dir).read_bytes()
    except FileNotFoundError:
        return
    try:
        children = msgspec.json.decode(content, type=dict[str, RecordedChild])
    except msgspec.DecodeError:
        children = {}
    alive = _alive(children)
    say("the platform did not stop cleanly last time" + (f"; ending {', '.join(alive)}" if alive else ""))
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for pid in alive.values():
            try:
                os.kill(pid, signal_number)
            except ProcessLookupError:
                continue
        for _ in range(int(STOP_LIMIT_S / POLL_S)):
            if not (alive := _alive(children)):
                break
            await asyncio.sleep(POLL_S)
    state_path(run_dir).unlink()


def _alive(children: dict[str, RecordedChild]) -> dict[str, int]:
    """Return the process ids of the children that still run, by name."""
    return {
        name: child.pid
        for name, child in children.items()
        if child.started is not None and start_time(child.pid) == child.started
    }

"""Ends child processes that were left running when the platform did not stop cleanly."""

import asyncio
import json
import os
import signal
from pathlib import Path

from ecrs.local.processes import STOP_LIMIT_S, Say, start_time, state_path

POLL_S = 0.1


async def end_leftovers(run_dir: Path, say: Say) -> None:
    """End the processes in the state file by SIGTERM, then SIGKILL, and remove the file.

    Does nothing without a state file. Process ids are reused, so a process is only ended if its start time is
    the one in the file.
    """
    try:
        children: dict[str, dict[str, int | None]] = json.loads(state_path(run_dir).read_text())
    except FileNotFoundError:
        return
    except ValueError:
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


def _alive(children: dict[str, dict[str, int | None]]) -> dict[str, int]:
    """Return the process ids of the children that still run, by name.

    A child without a start time had already ended when the state file was written.
    """
    alive = {}
    for name, child in children.items():
        pid, started = child["pid"], child["started"]
        if pid is not None and started is not None and start_time(pid) == started:
            alive[name] = pid
    return alive

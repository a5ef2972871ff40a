"""Ends the child processes that an unclean stop left running."""

import asyncio
import json
import os
import signal
from pathlib import Path

from ecrs.local.processes import STOP_LIMIT_S, Say, start_time, state_path

POLL_S = 0.1


async def end_leftovers(run_dir: Path, say: Say) -> None:
    """End every process that the state file names, by SIGTERM and then SIGKILL, and remove the file.

    Process ids are reused, so one counts only if its start time is the one in the file.
    """
    try:
        left: dict[str, dict[str, int | None]] = json.loads(state_path(run_dir).read_text())
    except FileNotFoundError:
        return
    except ValueError:
        left = {}
    alive = _alive(left)
    say("the platform did not stop cleanly last time" + (f"; ending {', '.join(alive)}" if alive else ""))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in alive.values():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        for _ in range(int(STOP_LIMIT_S / POLL_S)):
            if not (alive := _alive(left)):
                break
            await asyncio.sleep(POLL_S)
    state_path(run_dir).unlink()


def _alive(children: dict[str, dict[str, int | None]]) -> dict[str, int]:
    """Process ids of the children that still run; one without a start time had ended when it was written."""
    found = {}
    for name, child in children.items():
        pid, started = child["pid"], child["started"]
        if pid is not None and started is not None and start_time(pid) == started:
            found[name] = pid
    return found

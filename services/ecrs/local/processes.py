"""Starts, restarts and stops child processes, and records them in a state file."""

import asyncio
import ctypes
import json
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ecrs.local.errors import StartError
from ecrs.probe import probe
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.waiting import wait_until

START_LIMIT_S = 90.0
"""Longest time for a service to become SERVING."""
STOP_LIMIT_S = 8.0
"""Time that a child process has to stop after SIGTERM, before SIGKILL."""

Say = Callable[[str], None]
"""Receives one line for the user."""


@dataclass
class ChildProcesses:
    """The child processes of one platform, by name.

    `run_dir`: directory of the state file and of `log/`, which has one log file per child.
    """

    run_dir: Path
    say: Say
    redis_url: str = ""
    processes: dict[str, Process] = field(default_factory=dict)
    _watches: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Start a child process with its output in its log file, and start it again whenever it ends.

        `environment` is added to this process's own.
        """
        await self._spawn(name, command, environment)
        self._watches[name] = asyncio.create_task(self._watch(name, command, environment))

    async def wait_until_serving(self, name: str) -> None:
        """Return once service `name` is SERVING.

        Raises StartError, with the reason that it is not, after START_LIMIT_S.
        """

        async def attempt() -> None:
            if (reason := (await asyncio.to_thread(probe, name)).reason) is not None:
                raise Unavailable(reason)

        try:
            await wait_until(name, attempt, limit_s=START_LIMIT_S)
        except Unavailable as fault:
            raise StartError(f"{name} is not serving: {fault.text}; see {self._log(name)}") from fault

    async def stop(self) -> None:
        """Stop the children, the last one started first: by SIGTERM, then after STOP_LIMIT_S by SIGKILL."""
        for watch in self._watches.values():
            watch.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        for name in reversed(self.processes):
            process = self.processes[name]
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
                except TimeoutError:
                    self.say(f"{name} did not stop within {STOP_LIMIT_S:.0f} s and was killed")
                    process.kill()
                    await process.wait()

    async def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        log = self._log(name)
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *command,
                env=os.environ | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C only reaches this process, which stops the children
                preexec_fn=_end_with_parent,
            )
        write_state(self.run_dir, {child: process.pid for child, process in self.processes.items()})

    async def _watch(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        delay_s = 0.2
        while True:
            code = await self.processes[name].wait()
            self.say(f"{name} ended with {code}; restarting it in {delay_s:.1f} s (log: {self._log(name)})")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 5.0)
            await self._spawn(name, command, environment)

    def _log(self, name: str) -> Path:
        return self.run_dir / "log" / f"{name}.log"


def state_path(run_dir: Path) -> Path:
    """Return the path of a run directory's state file: the children's process ids and start times."""
    return run_dir / "children.json"


def write_state(run_dir: Path, pids: dict[str, int]) -> None:
    """Write the state file atomically. `pids`: process ids by name."""
    state = {name: {"pid": pid, "started": start_time(pid)} for name, pid in pids.items()}
    draft = run_dir / ".children.json"
    draft.write_text(json.dumps(state))
    draft.replace(state_path(run_dir))


def start_time(pid: int) -> int | None:
    """Return the start time of a live process, in clock ticks since boot; None if it does not exist.

    A zombie with other threads counts as alive: its ports stay in use until the last thread has ended.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    threads, started = int(rest[16]), int(rest[18])
    return None if state == "Z" and threads <= 1 else started


def _end_with_parent() -> None:
    """In the child, before exec: have the kernel send SIGTERM when the parent dies (prctl(2))."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)

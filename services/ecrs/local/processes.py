"""Starts, restarts and stops child processes, and records them in a state file."""

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ecrs.local.errors import StartError
from ecrs.local.run_directory import write_private
from ecrs.probe import probe
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.log_file import LogFile
from ecrs.rpc.settings import LogSettings
from ecrs.rpc.supervision import supervised
from ecrs.rpc.waiting import wait_until

START_LIMIT_S = 90.0
"""Longest time for a child process to become ready."""
START_ATTEMPTS = 3
"""The platform does not start if a child ends this many times before it is ready."""
STOP_LIMIT_S = 8.0
"""Time that a child process has to stop after SIGTERM, before SIGKILL."""
STATE_RETRY_S = 1.0
"""Pause before the state file is written again after an error."""
LOG_TAIL_LINES, LOG_TAIL_BYTES = 3, 4_000
"""How much of a child's log an error shows."""

Say = Callable[[str], None]
"""Receives one line for the user."""


class RestartDelay:
    """The pause before a child is started again. It doubles, until the child has run for a minute."""

    FIRST_S, LONGEST_S = 0.2, 5.0
    HEALTHY_S = 60.0

    def __init__(self) -> None:
        self._next_s = self.FIRST_S

    def after(self, ran_s: float) -> float:
        """Return the pause, in seconds, after a child that ran for `ran_s` seconds."""
        if ran_s >= self.HEALTHY_S:
            self._next_s = self.FIRST_S
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, self.LONGEST_S)
        return delay_s


@dataclass
class _Child:
    command: list[str]
    environment: Mapping[str, str]
    process: Process | None = None
    started_at: float = 0.0  # time.monotonic()
    ends: int = 0
    code: int | None = None  # exit code of the last end; negative for a signal
    delay: RestartDelay = field(default_factory=RestartDelay)


class ChildProcesses:
    """The child processes of one platform, by name.

    `run_dir`: directory of the state file and of `log/`, which has one log file per child. `redis_url` is the
    profile store's. Whatever happens to the disk, a child that ends is started again: its log and the state
    file can wait.
    """

    def __init__(self, run_dir: Path, say: Say) -> None:
        self.redis_url = ""
        self._run_dir = run_dir
        self._say = say
        self._children: dict[str, _Child] = {}
        self._state_changed = asyncio.Event()
        self._tasks = [self._supervise("state file", self._keep_state)]

    @property
    def processes(self) -> dict[str, Process]:
        """The processes by name, in the order in which they were started first."""
        return {name: child.process for name, child in self._children.items() if child.process}

    async def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        """Start a child with its output in its log file, and start it again whenever it ends.

        `environment` is all that the child gets. Files that it creates are private to its user.
        """
        child = self._children[name] = _Child(command, environment)
        await self._spawn(name, child)
        self._tasks.append(self._supervise(name, partial(self._watch, name, child)))

    async def wait_until_ready(self, name: str, check: Callable[[], Awaitable[None]]) -> None:
        """Return once `check` does not raise Unavailable.

        Raises StartError, with the reason, after START_LIMIT_S or when the child has ended START_ATTEMPTS
        times.
        """
        child = self._children[name]

        async def attempt() -> None:
            if child.ends >= START_ATTEMPTS:
                raise StartError(
                    f"{name} ended {child.ends} times, with {child.code}; {self.log_path(name)} ends with\n"
                    + self._log_tail(name)
                )
            await check()

        try:
            await wait_until(name, attempt, limit_s=START_LIMIT_S)
        except Unavailable as fault:
            raise StartError(f"{name} is not ready: {fault.text}; see {self.log_path(name)}") from fault

    async def wait_until_serving(self, name: str) -> None:
        """Return once service `name` is SERVING. Raises StartError as `wait_until_ready` does."""

        async def check() -> None:
            if (reason := (await asyncio.to_thread(probe, name)).reason) is not None:
                raise Unavailable(reason)

        await self.wait_until_ready(name, check)

    async def stop(self) -> None:
        """Stop the children, the last one started first: by SIGTERM, then after STOP_LIMIT_S by SIGKILL."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name, process in reversed(self.processes.items()):
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
                except TimeoutError:
                    self._say(f"{name} did not stop within {STOP_LIMIT_S:.0f} s and was killed")
                    process.kill()
                    await process.wait()

    def log_path(self, name: str) -> Path:
        """Return the path of a child's log file."""
        return self._run_dir / "log" / f"{name}.log"

    def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(supervised("up", name, run))

    async def _watch(self, name: str, child: _Child) -> None:
        """Start the child again whenever it ends. If that fails, this task is restarted and tries again."""
        while True:
            assert child.process is not None
            child.code = await child.process.wait()
            child.ends += 1
            delay_s = child.delay.after(time.monotonic() - child.started_at)
            self._say(
                f"{name} ended with {child.code}; restarting it in {delay_s:.1f} s "
                f"(log: {self.log_path(name)})"
            )
            await asyncio.sleep(delay_s)
            await self._spawn(name, child)

    async def _spawn(self, name: str, child: _Child) -> None:
        output = self._open_log(name)
        try:
            child.process = await asyncio.create_subprocess_exec(
                *child.command,
                env=child.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                umask=0o077,
                start_new_session=True,  # so that Ctrl-C only reaches this process, which stops the children
                preexec_fn=_end_with_parent,
            )
        finally:
            if output != subprocess.DEVNULL:
                os.close(output)
        child.started_at = time.monotonic()
        self._state_changed.set()

    def _open_log(self, name: str) -> int:
        """Return a descriptor of the child's log file, or DEVNULL if it cannot be opened now."""
        path = self.log_path(name)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            return LogFile(path, LogSettings()).open()
        except OSError as error:
            self._say(f"{path} cannot be opened: {error.strerror}")
            return subprocess.DEVNULL

    def _log_tail(self, name: str) -> str:
        """Return the last lines of a child's log, indented."""
        try:
            content = self.log_path(name).read_bytes()[-LOG_TAIL_BYTES:]
        except OSError:
            return "    (it cannot be read)"
        lines = [line for line in content.decode(errors="replace").splitlines() if line.strip()]
        return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])

    async def _keep_state(self) -> None:
        """Write the state file after every change; try again while that fails."""
        failing = False
        while True:
            self._state_changed.clear()
            try:
                write_state(self._run_dir, {name: process.pid for name, process in self.processes.items()})
            except OSError as error:
                if not failing:
                    self._say(f"{state_path(self._run_dir)} cannot be written: {error.strerror}")
                failing = True
                await asyncio.sleep(STATE_RETRY_S)
            else:
                failing = False
                await self._state_changed.wait()


def state_path(run_dir: Path) -> Path:
    """Return the path of a run directory's state file: the children's process ids and start times."""
    return run_dir / "children.json"


def write_state(run_dir: Path, pids: dict[str, int]) -> None:
    """Write the state file atomically. `pids`: process ids by name."""
    state = {name: {"pid": pid, "started": start_time(pid)} for name, pid in pids.items()}
    write_private(state_path(run_dir), json.dumps(state))


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

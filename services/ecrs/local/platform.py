"""Starts and stops the embedded platform: Valkey and the five services, on 127.0.0.1.

The child processes end when this process ends, however it ends: the kernel sends them SIGTERM when their
parent dies. Their process ids are written to the run directory, so that the next start can end processes that
are still running after an unclean stop.
"""

import asyncio
import fcntl
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from ecrs.bundle import Bundle
from ecrs.local.errors import StartError
from ecrs.local.leftovers import end_leftovers
from ecrs.local.processes import ChildProcesses, Say, state_path
from ecrs.local.valkey import valkey_command
from ecrs.ports import METRICS_OFFSET, PORTS
from ecrs.settings import RedisSettings

START_ORDER = ("um", "cm", "recall", "rank", "gateway")
"""Services in the order in which they start. They stop in reverse, the gateway first."""

Seed = Callable[[Bundle, RedisSettings], Awaitable[str]]
"""Loads a bundle into the profile store and returns a line to print. It is passed in, because the loaders
depend on this package and not the other way round."""


@asynccontextmanager
async def platform(
    bundle: Bundle, run_dir: Path, seed: Seed, say: Say = print
) -> AsyncIterator[ChildProcesses]:
    """Run the platform for the duration of the context, which is entered when all services are SERVING.

    Uses the profile store that ECRS_REDIS_URL names, or starts Valkey. A child process that ends is started
    again. `say` receives lines for the user. Raises StartError.
    """
    async with AsyncExitStack() as stack:
        run_dir = stack.enter_context(_locked(run_dir))
        await end_leftovers(run_dir, say)
        _check_ports()
        children = await stack.enter_async_context(_children(run_dir, say))
        settings = RedisSettings()
        if "ECRS_REDIS_URL" not in os.environ:
            socket_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecrs-"))
            settings = RedisSettings(redis_url=f"unix://{socket_dir}/valkey.sock")
            await children.start("valkey", valkey_command(run_dir, f"{socket_dir}/valkey.sock"), {})
        children.redis_url = settings.redis_url
        say(await seed(bundle, settings))
        environment = {
            "ECRS_BUNDLE": str(bundle.path),
            "ECRS_REDIS_URL": settings.redis_url,
            "ECRS_ITEMS_DIR": str(run_dir / "items"),
        }
        for name in START_ORDER:
            await children.start(name, [sys.executable, "-m", "ecrs.serve", name], environment)
        await asyncio.gather(*(children.wait_until_serving(name) for name in START_ORDER))
        yield children


@asynccontextmanager
async def _children(run_dir: Path, say: Say) -> AsyncIterator[ChildProcesses]:
    children = ChildProcesses(run_dir, say)
    try:
        yield children
    finally:
        await children.stop()
        state_path(run_dir).unlink(missing_ok=True)


def _check_ports() -> None:
    """Raise StartError if a port of a service is in use."""
    for name, port in PORTS.items():
        for needed in (port, port + METRICS_OFFSET):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", needed))
                except OSError as error:
                    raise StartError(
                        f"port {needed} ({name}) is in use: is the platform already running, "
                        "here or in Docker?"
                    ) from error


@contextmanager
def _locked(run_dir: Path) -> Iterator[Path]:
    """Create and lock the run directory. The kernel releases the lock however this process ends."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"the platform is already running (run directory {run_dir})") from None
        yield run_dir.resolve()

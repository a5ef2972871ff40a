"""Starts and stops the embedded platform: Valkey and the five services, on 127.0.0.1.

The child processes end when this process ends, however it ends: the kernel sends them SIGTERM when their
parent dies. Their process ids are written to the run directory, so that the next start can end processes that
are still running after an unclean stop.
"""

import asyncio
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from redis.exceptions import RedisError

from ecrs.bundle import Bundle
from ecrs.local.errors import StartError
from ecrs.local.leftovers import end_leftovers
from ecrs.local.processes import ChildProcesses, Say, state_path
from ecrs.local.run_directory import locked_run_directory, reporting_errors, write_private
from ecrs.local.valkey import find_damage, valkey_command
from ecrs.ports import METRICS_OFFSET, PORTS
from ecrs.rpc.errors import Unavailable
from ecrs.settings import JournalSettings, RedisSettings, WriteSettings, write_token_path
from ecrs.storage.redis_profiles import open_redis

START_ORDER = ("um", "cm", "recall", "rank", "gateway")
"""Services in the order in which they start. They stop in reverse, the gateway first."""
WRITERS = ("cm", "recall")
"""Services that have the write token."""
HOST = "127.0.0.1"

Seed = Callable[[Bundle, JournalSettings], Awaitable[str]]
"""Loads a bundle into the profile store, with the changes in the journal, and returns a line to print. It is
passed in, because the loaders depend on this package and not the other way round."""


@asynccontextmanager
async def platform(
    bundle: Bundle, run_dir: Path, seed: Seed, say: Say = print
) -> AsyncIterator[ChildProcesses]:
    """Run the platform for the duration of the context, which is entered when all services are SERVING.

    Uses the profile store that ECRS_REDIS_URL names, or starts Valkey. A child process that ends is started
    again. `say` receives lines for the user. Raises StartError.
    """
    async with AsyncExitStack() as stack:
        run_dir = stack.enter_context(locked_run_directory(run_dir))
        with reporting_errors(run_dir):
            await end_leftovers(run_dir, say)
        _check_ports()
        token = stack.enter_context(_write_token(run_dir))
        children = await stack.enter_async_context(_children(run_dir, say))
        inherited = _inherited_environment(say)
        settings = JournalSettings()
        if "ECRS_ITEM_JOURNAL" not in os.environ:
            settings.item_journal = f"sqlite:///{run_dir / 'items.sqlite'}"
        if "ECRS_REDIS_URL" not in os.environ:
            socket_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecrs-"))
            settings.redis_url = f"unix://{socket_dir}/valkey.sock"
            await _start_valkey(children, run_dir, settings, f"{socket_dir}/valkey.sock", inherited)
        children.redis_url = settings.redis_url
        say(await seed(bundle, settings))
        common = inherited | {
            "ECRS_BUNDLE": str(bundle.path),
            "ECRS_REDIS_URL": settings.redis_url,
            "ECRS_ITEM_JOURNAL": settings.item_journal,
            "ECRS_HOST": HOST,
        }
        for name in START_ORDER:
            own = {
                "ECRS_PORT": str(PORTS[name]),
                "ECRS_METRICS_PORT": str(PORTS[name] + METRICS_OFFSET),
                "ECRS_LOG_FILE": str(children.log_path(name)),
                **({"ECRS_WRITE_TOKEN": token} if name in WRITERS else {}),
            }
            await children.start(name, [sys.executable, "-m", "ecrs.serve", name], common | own)
        await asyncio.gather(*map(children.wait_until_serving, START_ORDER))
        yield children


@asynccontextmanager
async def _children(run_dir: Path, say: Say) -> AsyncIterator[ChildProcesses]:
    children = ChildProcesses(run_dir, say)
    try:
        yield children
    finally:
        await children.stop()
        state_path(run_dir).unlink(missing_ok=True)


async def _start_valkey(
    children: ChildProcesses,
    run_dir: Path,
    settings: RedisSettings,
    socket_path: str,
    environment: Mapping[str, str],
) -> None:
    """Start Valkey and wait until it has loaded its data. Raises StartError; its text names damaged data."""

    async def ping() -> None:
        async with open_redis(settings) as redis:
            try:
                await redis.ping()
            except (RedisError, OSError) as error:
                raise Unavailable(f"{type(error).__name__}: {error}") from error

    with reporting_errors(run_dir):
        command = valkey_command(run_dir, socket_path)
    await children.start("valkey", command, environment)
    try:
        await children.wait_until_ready("valkey", ping)
    except StartError as error:
        if damage := await asyncio.to_thread(find_damage, run_dir):
            raise StartError(f"{damage}: `ecrs repair` repairs it. {error}") from error
        raise


def _inherited_environment(say: Say) -> dict[str, str]:
    """Return the environment of this process without the write token, which only some children get.

    `say` is told of settings of a single service, which do not apply here.
    """
    for name in ("ECRS_HOST", "ECRS_PORT", "ECRS_METRICS_PORT"):
        if (value := os.environ.get(name)) not in (None, HOST):
            say(f"{name}={value} is ignored: the platform listens on {HOST} and its own ports only")
    return {name: value for name, value in os.environ.items() if name != "ECRS_WRITE_TOKEN"}


@contextmanager
def _write_token(run_dir: Path) -> Iterator[str]:
    """Yield the write token, a new one unless a setting gives it, and keep it in a file for the owner."""
    token = WriteSettings().write_token or secrets.token_urlsafe(32)
    path = write_token_path(run_dir)
    with reporting_errors(run_dir):
        write_private(path, token)
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


def _check_ports() -> None:
    """Raise StartError if a port of a service is in use."""
    for name, port in PORTS.items():
        for needed in (port, port + METRICS_OFFSET):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, needed))
                except OSError as error:
                    raise StartError(
                        f"port {needed} ({name}) is in use: is the platform already running, "
                        "here or in Docker?"
                    ) from error

"""Runs the embedded platform: the supervisor of `ecrs.local` with the loader of `ecrs_seed`."""

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog

from ecrs.bundle import Bundle
from ecrs.local.platform import platform
from ecrs.local.processes import START_LIMIT_S, ChildProcesses
from ecrs.ports import PORTS
from ecrs.rpc import log
from ecrs.rpc.line_writer import Descriptor, LineWriter
from ecrs.rpc.log_file import LogFile
from ecrs.rpc.settings import LogSettings
from ecrs.settings import JournalSettings
from ecrs.storage.item_journals import open_item_journal
from ecrs.storage.redis_profiles import open_redis
from ecrs_seed.redis import seed_redis


def embedded_platform(
    bundle: Bundle, run_dir: Path, say: Callable[[str], None] = print
) -> AbstractAsyncContextManager[ChildProcesses]:
    """Run the platform on this machine with `bundle`, for the duration of the context. Raises StartError."""
    return platform(bundle, run_dir, _seed, say)


async def up(bundle: Bundle, run_dir: Path) -> None:
    """Run the platform until SIGINT or SIGTERM. Raises StartError.

    What it says is also in `log/up.log` of the run directory. Printing cannot hold it up: a terminal can be
    paused, and standard output can be a file on a full disk.
    """
    log.configure("up", LogFile(run_dir / "log" / "up.log", LogSettings()))
    console = LineWriter(Descriptor(sys.stdout.fileno()))

    def say(line: str) -> None:
        console.write(f"{line}\n".encode(errors="replace"))
        structlog.get_logger().info("said", text=line)

    this_task = asyncio.current_task()
    assert this_task is not None
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, this_task.cancel)
    try:
        async with embedded_platform(bundle, run_dir, say):
            gateway = f"127.0.0.1:{PORTS['gateway']}"
            say(f"up: bundle {bundle.version}, gateway on {gateway}. Ctrl-C stops it.")
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("stopped")
    finally:
        console.close()


async def _seed(bundle: Bundle, settings: JournalSettings) -> str:
    async with open_redis(settings) as redis, open_item_journal(settings) as journal:
        return str(await seed_redis(bundle, redis, journal, wait_s=START_LIMIT_S))

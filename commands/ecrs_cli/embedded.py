"""Runs the embedded platform: the supervisor of `ecrs.local` with the loader of `ecrs_seed`."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import typer

from ecrs.bundle import Bundle
from ecrs.local.platform import platform
from ecrs.local.processes import START_LIMIT_S, ChildProcesses
from ecrs.ports import PORTS
from ecrs.settings import RedisSettings
from ecrs.storage.redis_profiles import open_redis
from ecrs_seed.redis import seed_redis


def embedded_platform(
    bundle: Bundle, run_dir: Path, say: Callable[[str], None] = print
) -> AbstractAsyncContextManager[ChildProcesses]:
    """Run the platform on this machine with `bundle`, for the duration of the context. Raises StartError."""
    return platform(bundle, run_dir, _seed, say)


async def up(bundle: Bundle, run_dir: Path) -> None:
    """Run the platform until SIGINT or SIGTERM. Raises StartError."""
    this_task = asyncio.current_task()
    assert this_task is not None
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, this_task.cancel)
    try:
        async with embedded_platform(bundle, run_dir, say=typer.echo):
            gateway = f"127.0.0.1:{PORTS['gateway']}"
            typer.echo(f"up: bundle {bundle.version}, gateway on {gateway}. Ctrl-C stops it.")
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        typer.echo("stopped")


async def _seed(bundle: Bundle, settings: RedisSettings) -> str:
    async with open_redis(settings) as redis:
        return str(await seed_redis(bundle, redis, wait_s=START_LIMIT_S))

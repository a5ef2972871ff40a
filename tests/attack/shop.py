"""The platform under attack: started by `ecrs up`, as a user starts it."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from redis.asyncio import Redis

from ecrs.bundle import Bundle
from ecrs.domain.entities import Item
from ecrs.domain.files import parse_item
from ecrs.ports import PORTS
from ecrs.settings import RedisSettings
from ecrs.storage.redis_profiles import open_redis
from tests.small_disk import small_disks
from tests.system.conftest import Up, children

HOLD_S = 4.0
"""How long most attacks last: forty ordinary calls."""
CALL_LIMIT_S = 2.0
"""Deadline of an attacker's own calls."""
LOG_DISK_KIB = 64 * 1024
USERS = 40

WRITE_TOKEN = "a-token-of-the-attacked-shop"
AUTHORIZED = (("authorization", f"Bearer {WRITE_TOKEN}"),)
"""Metadata of calls that may change products."""


@dataclass(frozen=True)
class Shop:
    """A running platform. `users` are ids of users whom it knows; `log_disk` is None without root."""

    bundle: Bundle
    up: Up
    users: list[str]
    log_disk: Path | None

    @classmethod
    @contextmanager
    def running(cls, bundle: Bundle, directory: Path) -> Iterator["Shop"]:
        """Run the platform with its files in `directory`; as root, its logs are on a small disk."""
        with ExitStack() as stack:
            directory.mkdir()
            try:
                log_disk: Path | None = stack.enter_context(small_disks(directory))(LOG_DISK_KIB)
            except pytest.skip.Exception:
                log_disk = None
            run_dir = directory / "run"
            run_dir.mkdir()
            if log_disk:
                (run_dir / "log").symlink_to(log_disk)
            # A host that a careless user's environment may hold: it must not open the ports to the network.
            up = Up(bundle.path, run_dir, {"ECRS_WRITE_TOKEN": WRITE_TOKEN, "ECRS_HOST": "0.0.0.0"})  # noqa: S104
            stack.callback(up.stop)
            up.wait_for("up: bundle")
            users = [line.split(":")[0] for line in bundle.lines("users.dat")]
            yield cls(bundle, up, users[:: max(1, len(users) // USERS)][:USERS], log_disk)

    @property
    def pids(self) -> dict[str, int]:
        """The ids of the platform's processes by name; a process that was just started may be missing."""
        return children(self.up.run_dir)

    @property
    def products(self) -> list[Item]:
        """The bundle's products, the most popular first."""
        order = np.argsort(-np.load(self.bundle.path / "recall" / "popular.npy"), kind="stable")
        products = list(self.bundle.records("products.dat", parse_item))
        return [products[row] for row in order.tolist()]

    def store(self) -> AbstractAsyncContextManager[Redis]:
        """Open a plain client of the profile store."""
        given = {name.removeprefix("ECRS_").lower(): value for name, value in self._environment.items()}
        return open_redis(RedisSettings(**given))

    def seed(self) -> None:
        """Load the bundle into the profile store again, by the command that an operator would use."""
        command = [sys.executable, "-m", "ecrs_cli", "seed", "redis"]
        environment = os.environ | self._environment
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)

    @property
    def _environment(self) -> dict[str, str]:
        """The platform's settings as cm has them in its environment."""
        environment = Path(f"/proc/{self.pids['cm']}/environ").read_bytes().decode()
        return dict(re.findall(r"(ECRS_\w+)=([^\0]*)", environment))


@asynccontextmanager
async def connected(service: str) -> AsyncIterator[grpc.aio.Channel]:
    """Open a connection of its own to a service, which sends messages of any size."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{PORTS[service]}", options) as channel:
        yield channel


async def at_rate(per_s: float, action: Callable[[int], Awaitable[Any]], hold_s: float = HOLD_S) -> list[Any]:
    """Start `action(number)` `per_s` times a second for `hold_s`, whether or not earlier ones have ended.

    Returns what they returned. An attacker expects to be refused: calls that failed and connections that
    were closed are left out.
    """
    started, actions = time.monotonic(), list[asyncio.Future[Any]]()
    while (due := len(actions) / per_s) < hold_s:
        await asyncio.sleep(started + due - time.monotonic())
        actions.append(asyncio.ensure_future(action(len(actions))))
    results = await asyncio.gather(*actions, return_exceptions=True)
    refusals = (grpc.RpcError, OSError, TimeoutError, asyncio.IncompleteReadError)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, refusals):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]

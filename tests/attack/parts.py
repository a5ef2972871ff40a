"""Attacks that stop or end a part of the platform. Its fallback answers meanwhile."""

import asyncio
import os
import signal

from tests.attack.attack import ANY, attack
from tests.attack.shop import Shop

PARTS = ("um", "cm", "recall", "rank", "valkey")
AWAY_S = 3.0


@attack(parts=PARTS, degraded=ANY)
async def stopped(shop: Shop, part: str) -> None:
    pid = shop.pids[part]
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(AWAY_S)
    finally:
        os.kill(pid, signal.SIGCONT)


@attack(parts=PARTS, degraded=ANY, ends_part=True)
async def killed(shop: Shop, part: str) -> None:
    os.kill(shop.pids[part], signal.SIGKILL)
    await asyncio.sleep(AWAY_S)

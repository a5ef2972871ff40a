"""A supervised background task is restarted whenever it ends, until it is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import REGISTRY

from ecrs.rpc.supervision import supervised


async def returns() -> None: ...


async def raises() -> None:
    raise RuntimeError("a bug")


async def is_cancelled_by_a_library() -> None:
    raise asyncio.CancelledError


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecrs.rpc.supervision.RESTART_DELAY_S", 0.0)


def failures() -> float:
    return REGISTRY.get_sample_value("ecrs_task_failures_total", {"service": "any", "task": "test"}) or 0.0


@pytest.mark.parametrize("on_failure", [returns, raises, is_cancelled_by_a_library])
@pytest.mark.parametrize("end", [returns, raises, is_cancelled_by_a_library])
async def test_ended_task_is_counted_and_restarted(
    end: Callable[[], Awaitable[None]], on_failure: Callable[[], Awaitable[None]]
) -> None:
    runs, third_run = 0, asyncio.Event()

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            third_run.set()
            await asyncio.Event().wait()
        await end()

    before = failures()
    task = asyncio.create_task(supervised("any", "test", run, on_failure))
    await asyncio.wait_for(third_run.wait(), 5)
    assert failures() == before + 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert failures() == before + 2


async def test_task_that_swallows_its_cancellation_still_ends() -> None:
    running = asyncio.Event()

    async def swallow() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    task = asyncio.create_task(supervised("any", "test", swallow))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)

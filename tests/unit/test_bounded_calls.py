"""Calls to stores and models are bounded in time, and their outcomes are counted."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from ecrs.rpc.deadlines import bounded
from ecrs.rpc.errors import DeadlineExceeded, NotFound, Unavailable


async def answer(value: int, fault: Exception | None = None, delay_s: float = 0.0) -> int:
    await asyncio.sleep(delay_s)
    if fault:
        raise fault
    return value


def observed(dependency: str) -> dict[str, float]:
    """Return the number of calls to `dependency` by outcome."""
    return {
        sample.labels["outcome"]: sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "ecrs_dependency_seconds_count" and sample.labels["dependency"] == dependency
    }


async def test_answer_in_time_is_returned_and_counted() -> None:
    assert await bounded(1.0, "A store", answer(7), dependency="a store that answers") == 7
    assert observed("a store that answers") == {"ok": 1}


@pytest.mark.parametrize(
    ("delay_s", "fault", "raised", "outcome"),
    [
        (60, None, DeadlineExceeded("A store did not answer within 10 ms"), "deadline_exceeded"),
        (0, OSError("secret"), Unavailable("A store is unavailable (OSError)"), "unavailable"),
        (0, NotFound("no such thing"), NotFound("no such thing"), "not_found"),
        (0, ZeroDivisionError("a bug"), ZeroDivisionError("a bug"), "error"),
    ],
)
async def test_failures_become_faults_and_are_counted_by_outcome(
    delay_s: float, fault: Exception | None, raised: Exception, outcome: str
) -> None:
    dependency = f"a store that ends as {outcome}"
    with pytest.raises(type(raised)) as caught:
        await bounded(
            0.01, "A store", answer(0, fault, delay_s), dependency=dependency, unavailable_on=(OSError,)
        )
    assert str(caught.value) == str(raised)
    assert observed(dependency) == {outcome: 1}


async def test_cancelled_call_is_counted_as_cancelled() -> None:
    waiting = asyncio.create_task(
        bounded(60.0, "A store", answer(0, delay_s=60), dependency="a store whose caller cancels")
    )
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert observed("a store whose caller cancels") == {"cancelled": 1}

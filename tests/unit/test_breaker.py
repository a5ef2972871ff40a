"""The circuit breaker, driven by a fake clock."""

import asyncio

import pytest

from ecrs.rpc.breaker import CLOSED, FAILURES_TO_OPEN, HALF_OPEN, MIN_TIMEOUT_S, OPEN, OPEN_S, CircuitBreaker
from ecrs.rpc.errors import DeadlineExceeded, Fault, NotFound, Unavailable


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("a dependency", clock)


def call(breaker: CircuitBreaker, error: BaseException | None = None, timeout_s: float = 1.0) -> None:
    with breaker.guard(timeout_s):
        if error is not None:
            raise error


def fail(breaker: CircuitBreaker, error: BaseException | None = None, timeout_s: float = 1.0) -> None:
    error = error or Unavailable("down")
    with pytest.raises(type(error)) as raised:
        call(breaker, error, timeout_s)
    assert raised.value is error  # so the call was made


def refuses(breaker: CircuitBreaker) -> bool:
    try:
        with breaker.guard(1.0):
            return False
    except Unavailable as refused:
        return "circuit breaker is open" in refused.text


def trip(breaker: CircuitBreaker) -> None:
    for _ in range(FAILURES_TO_OPEN):
        fail(breaker)
    assert breaker.state == OPEN


@pytest.mark.parametrize("fault", [Unavailable("down"), DeadlineExceeded("hangs")])
def test_consecutive_failures_open_breaker(breaker: CircuitBreaker, fault: Fault) -> None:
    for _ in range(FAILURES_TO_OPEN - 1):
        fail(breaker, fault)
    assert breaker.state == CLOSED
    fail(breaker, fault)
    assert refuses(breaker)


def test_success_resets_failure_count(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            fail(breaker)
        call(breaker)
    assert breaker.state == CLOSED


def test_other_faults_are_not_failures(breaker: CircuitBreaker) -> None:
    for _ in range(2 * FAILURES_TO_OPEN):
        fail(breaker, NotFound("no such user"))
    assert breaker.state == CLOSED


def test_timeouts_of_hurried_callers_do_not_open_breaker(breaker: CircuitBreaker) -> None:
    for _ in range(2 * FAILURES_TO_OPEN):
        fail(breaker, DeadlineExceeded("no time"), timeout_s=MIN_TIMEOUT_S / 2)
    assert breaker.state == CLOSED


def test_successful_probe_closes_breaker(breaker: CircuitBreaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += OPEN_S - 0.01
    assert refuses(breaker)
    clock.now += 0.01
    with breaker.guard(1.0):
        assert breaker.state == HALF_OPEN
        assert refuses(breaker)  # other calls, while the probe runs
    assert breaker.state == CLOSED


def test_failed_probe_reopens_breaker(breaker: CircuitBreaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += OPEN_S
    fail(breaker)
    assert refuses(breaker)
    clock.now += OPEN_S
    call(breaker)
    assert breaker.state == CLOSED


def test_cancelled_probe_is_repeated_immediately(breaker: CircuitBreaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += OPEN_S
    fail(breaker, asyncio.CancelledError())
    assert breaker.state == OPEN
    call(breaker)
    assert breaker.state == CLOSED

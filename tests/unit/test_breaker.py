"""The breaker, on a clock of the test's."""

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
    return CircuitBreaker("a part", clock)


def use(breaker: CircuitBreaker, error: BaseException | None = None, timeout_s: float = 1.0) -> None:
    with breaker.guard(timeout_s):
        if error is not None:
            raise error


def fail(breaker: CircuitBreaker, error: BaseException | None = None, timeout_s: float = 1.0) -> None:
    error = error or Unavailable("away")
    with pytest.raises(type(error)) as raised:
        use(breaker, error, timeout_s)
    assert raised.value is error  # the call was made


def refuses(breaker: CircuitBreaker) -> bool:
    try:
        with breaker.guard(1.0):
            return False
    except Unavailable as refused:
        return "circuit breaker is open" in refused.text


def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    for _ in range(FAILURES_TO_OPEN):
        fail(breaker)
    assert breaker.state == OPEN
    return breaker


@pytest.mark.parametrize("fault", [Unavailable("away"), DeadlineExceeded("hangs")])
def test_failures_in_a_row_open_it(breaker: CircuitBreaker, fault: Fault) -> None:
    for _ in range(FAILURES_TO_OPEN - 1):
        fail(breaker, fault)
    assert breaker.state == CLOSED
    fail(breaker, fault)
    assert refuses(breaker)


def test_a_success_between_starts_the_count_anew(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            fail(breaker)
        use(breaker)
    assert breaker.state == CLOSED


def test_an_answer_that_is_a_fault_is_an_answer(breaker: CircuitBreaker) -> None:
    for _ in range(2 * FAILURES_TO_OPEN):
        fail(breaker, NotFound("no such user"))
    assert breaker.state == CLOSED


def test_callers_without_time_do_not_open_it_for_all(breaker: CircuitBreaker) -> None:
    for _ in range(2 * FAILURES_TO_OPEN):
        fail(breaker, DeadlineExceeded("at once"), timeout_s=MIN_TIMEOUT_S / 2)
    assert breaker.state == CLOSED


def test_after_a_rest_one_call_probes_and_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += OPEN_S - 0.01
    assert refuses(breaker)
    clock.now += 0.01
    with breaker.guard(1.0):
        assert breaker.state == HALF_OPEN
        assert refuses(breaker)  # the others, meanwhile
    assert breaker.state == CLOSED


def test_a_probe_that_fails_lets_it_rest_again(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += OPEN_S
    fail(breaker)
    assert refuses(breaker)
    clock.now += OPEN_S
    use(breaker)
    assert breaker.state == CLOSED


def test_a_probe_whose_caller_goes_away_is_made_again_at_once(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += OPEN_S
    fail(breaker, asyncio.CancelledError())
    assert breaker.state == OPEN
    use(breaker)
    assert breaker.state == CLOSED

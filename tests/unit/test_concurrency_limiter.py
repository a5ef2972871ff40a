"""The concurrency limiter adapts how many calls a service accepts at a time."""

import time

import pytest

from ecrs.rpc.load import DECREASE_FACTOR, MIN_LIMIT, ConcurrencyLimiter


def record_at_limit(limiter: ConcurrencyLimiter, *, late: bool, started: float | None = None) -> None:
    """Record the end of a call during which as many calls were in flight as the limit allows."""
    limiter.record(time.monotonic() if started is None else started, int(limiter), late=late)


def test_late_answers_cut_limit_once_for_overlapping_calls() -> None:
    limiter, started = ConcurrencyLimiter(100), time.monotonic()
    for _ in range(50):
        record_at_limit(limiter, late=True, started=started)
    assert int(limiter) == 100 * DECREASE_FACTOR
    record_at_limit(limiter, late=True)
    assert int(limiter) == 100 * DECREASE_FACTOR * DECREASE_FACTOR


def test_timely_answers_raise_limit_to_maximum() -> None:
    limiter = ConcurrencyLimiter(20)
    record_at_limit(limiter, late=True)
    for _ in range(20):
        record_at_limit(limiter, late=False)
    assert int(limiter) == 17
    for _ in range(200):
        record_at_limit(limiter, late=False)
    assert int(limiter) == 20


@pytest.mark.parametrize(("maximum", "minimum"), [(100, MIN_LIMIT), (2, 2)])
def test_limit_does_not_fall_below_floor(maximum: int, minimum: int) -> None:
    limiter = ConcurrencyLimiter(maximum)
    for _ in range(100):
        record_at_limit(limiter, late=True)
    assert int(limiter) == minimum


def test_late_answer_cuts_limit_relative_to_calls_in_flight() -> None:
    limiter = ConcurrencyLimiter(64)
    limiter.record(time.monotonic(), 20, late=True)
    assert int(limiter) == 20 * DECREASE_FACTOR


def test_late_answers_with_few_calls_in_flight_keep_limit() -> None:
    """With so little traffic, late answers mean a hanging dependency, not overload."""
    limiter = ConcurrencyLimiter(64)
    for _ in range(100):
        limiter.record(time.monotonic(), MIN_LIMIT, late=True)
    assert int(limiter) == 64


def test_timely_answers_far_below_limit_do_not_raise_it() -> None:
    limiter = ConcurrencyLimiter(20)
    record_at_limit(limiter, late=True)
    for _ in range(100):
        limiter.record(time.monotonic(), 8, late=False)
    assert int(limiter) == 16

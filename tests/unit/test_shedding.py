"""How many calls a service takes at a time."""

import time

import pytest

from ecrs.rpc.load import DECREASE_FACTOR, MIN_LIMIT, ConcurrencyLimiter


def full(limit: ConcurrencyLimiter, *, late: bool, begun: float | None = None) -> None:
    """A call has ended with which the limit was reached."""
    limit.record(time.monotonic() if begun is None else begun, int(limit), late=late)


def test_a_late_answer_cuts_the_limit_once_for_all_that_were_in_flight() -> None:
    limit, begun = ConcurrencyLimiter(100), time.monotonic()
    for _ in range(50):
        full(limit, late=True, begun=begun)
    assert int(limit) == 100 * DECREASE_FACTOR
    full(limit, late=True)
    assert int(limit) == 100 * DECREASE_FACTOR * DECREASE_FACTOR


def test_answers_in_time_raise_it_to_the_most() -> None:
    limit = ConcurrencyLimiter(20)
    full(limit, late=True)
    for _ in range(20):
        full(limit, late=False)
    assert int(limit) == 17
    for _ in range(200):
        full(limit, late=False)
    assert int(limit) == 20


@pytest.mark.parametrize(("most", "least"), [(100, MIN_LIMIT), (2, 2)])
def test_it_falls_no_lower_than_the_least(most: int, least: int) -> None:
    limit = ConcurrencyLimiter(most)
    for _ in range(100):
        full(limit, late=True)
    assert int(limit) == least


def test_it_falls_to_what_was_in_flight_with_a_late_answer() -> None:
    limit = ConcurrencyLimiter(64)
    limit.record(time.monotonic(), 20, late=True)
    assert int(limit) == 20 * DECREASE_FACTOR


def test_a_few_late_calls_say_nothing_of_their_number() -> None:
    """As those that wait for a part that hangs, when the shop is quiet."""
    limit = ConcurrencyLimiter(64)
    for _ in range(100):
        limit.record(time.monotonic(), MIN_LIMIT, late=True)
    assert int(limit) == 64


def test_a_few_calls_in_time_say_nothing_of_more() -> None:
    limit = ConcurrencyLimiter(20)
    full(limit, late=True)
    for _ in range(100):
        limit.record(time.monotonic(), 8, late=False)
    assert int(limit) == 16

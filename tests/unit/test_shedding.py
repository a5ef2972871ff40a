"""How many calls a service takes at a time."""

import time

import pytest

from ecrs.kit.shedding import CUT, LEAST, Limit


def full(limit: Limit, *, late: bool, begun: float | None = None) -> None:
    """A call has ended with which the limit was reached."""
    limit.ended(time.monotonic() if begun is None else begun, int(limit), late=late)


def test_a_late_answer_cuts_the_limit_once_for_all_that_were_in_flight() -> None:
    limit, begun = Limit(100), time.monotonic()
    for _ in range(50):
        full(limit, late=True, begun=begun)
    assert int(limit) == 100 * CUT
    full(limit, late=True)
    assert int(limit) == 100 * CUT * CUT


def test_answers_in_time_raise_it_to_the_most() -> None:
    limit = Limit(20)
    full(limit, late=True)
    for _ in range(20):
        full(limit, late=False)
    assert int(limit) == 17
    for _ in range(200):
        full(limit, late=False)
    assert int(limit) == 20


@pytest.mark.parametrize(("most", "least"), [(100, LEAST), (2, 2)])
def test_it_falls_no_lower_than_the_least(most: int, least: int) -> None:
    limit = Limit(most)
    for _ in range(100):
        full(limit, late=True)
    assert int(limit) == least


def test_it_falls_to_what_was_in_flight_with_a_late_answer() -> None:
    limit = Limit(64)
    limit.ended(time.monotonic(), 20, late=True)
    assert int(limit) == 20 * CUT


def test_a_few_late_calls_say_nothing_of_their_number() -> None:
    """As those that wait for a part that hangs, when the shop is quiet."""
    limit = Limit(64)
    for _ in range(100):
        limit.ended(time.monotonic(), LEAST, late=True)
    assert int(limit) == 64


def test_a_few_calls_in_time_say_nothing_of_more() -> None:
    limit = Limit(20)
    full(limit, late=True)
    for _ in range(100):
        limit.ended(time.monotonic(), 8, late=False)
    assert int(limit) == 16

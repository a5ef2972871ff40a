"""Deadlines, and the share of the remaining time that each stage gets."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import DeadlineExceeded


def test_stage_gets_its_cap_if_time_allows() -> None:
    deadline = Deadline.after(10.0, default_s=1.0, reserve_s=0.1)
    assert deadline.share("any", limit_s=0.25) == 0.25


def test_stage_gets_remaining_time_minus_reserve() -> None:
    deadline = Deadline.after(1.0, default_s=9.0, reserve_s=0.4)
    assert 0.5 < deadline.share("any", limit_s=5.0) <= 0.6


def test_default_applies_without_deadline_of_caller() -> None:
    assert 1.9 < Deadline.after(None, default_s=2.0).remaining_s() <= 2.0


def test_no_time_left_raises_deadline_exceeded_naming_stage() -> None:
    with pytest.raises(DeadlineExceeded, match="rank"):
        Deadline.after(0.05, default_s=1.0, reserve_s=0.1).share("rank", limit_s=1.0)


@given(total=st.floats(0.0, 5.0), reserve=st.floats(0.0, 1.0), caps=st.lists(st.floats(0.0, 2.0), max_size=6))
def test_stages_never_get_more_than_remaining_time(total: float, reserve: float, caps: list[float]) -> None:
    deadline = Deadline(time.monotonic() + total, reserve)
    for cap in caps:
        try:
            assert deadline.share("any", cap) <= min(cap, total - reserve)
        except DeadlineExceeded:
            assert cap == 0.0 or deadline.remaining_s() <= reserve

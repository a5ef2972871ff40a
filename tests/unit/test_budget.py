import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.kit.budget import Budget
from ecrs.kit.errors import OutOfTime


def test_a_stage_gets_its_cap_when_there_is_time() -> None:
    budget = Budget.of(10.0, default_s=1.0, reserve_s=0.1)
    assert budget.stage("any", cap_s=0.25) == 0.25


def test_a_stage_gets_what_is_left_minus_the_reserve() -> None:
    budget = Budget.of(1.0, default_s=9.0, reserve_s=0.4)
    assert 0.5 < budget.stage("any", cap_s=5.0) <= 0.6


def test_without_a_callers_deadline_the_default_counts() -> None:
    assert 1.9 < Budget.of(None, default_s=2.0).remaining_s() <= 2.0


def test_no_time_left_is_out_of_time_and_names_the_stage() -> None:
    with pytest.raises(OutOfTime, match="rank"):
        Budget.of(0.05, default_s=1.0, reserve_s=0.1).stage("rank", cap_s=1.0)


@given(total=st.floats(0.0, 5.0), reserve=st.floats(0.0, 1.0), caps=st.lists(st.floats(0.0, 2.0), max_size=6))
def test_stages_never_get_more_than_the_budget(total: float, reserve: float, caps: list[float]) -> None:
    budget = Budget(time.monotonic() + total, reserve)
    for cap in caps:
        try:
            assert budget.stage("any", cap) <= min(cap, total - reserve)
        except OutOfTime:
            assert cap == 0.0 or budget.remaining_s() <= reserve

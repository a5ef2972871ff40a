"""What the benchmark makes of its samples."""

from tests.bench.figures import held_ratio, highest_held, is_held, p50, ratio, row
from tests.bench.load import Sample


def sample(*took_ms: float, **counts: int) -> Sample:
    return Sample([ms / 1000 for ms in took_ms], seconds=1.0, **counts)


def test_a_row_counts_what_was_answered_and_what_was_not() -> None:
    found = row([sample(10, 20, failed=1), sample(30, shed=2, degraded=1)])
    assert (found["calls"], found["p50_ms"], found["per_s"]) == (6, 20, 1.5)
    assert (found["failed"], found["shed"], found["degraded"]) == (1, 2, 1)


def test_a_rate_is_not_held_by_refusing_or_degrading() -> None:
    quick = [5.0] * 100
    assert is_held([sample(*quick)])
    assert not is_held([sample(*quick, 100, 100)])
    for kind in ("failed", "shed", "degraded"):
        assert is_held([sample(*quick, **{kind: 1})])
        assert not is_held([sample(*quick, **{kind: 5})])


def test_a_rate_counts_only_if_all_below_it_are_held() -> None:
    rates = {5.0: [sample(10)], 10.0: [sample(10)], 20.0: [sample(500)], 40.0: [sample(10)]}
    assert highest_held(rates) == 10
    assert highest_held({5.0: [sample(500)]}) == 0


def test_a_rate_without_an_answer_is_not_held() -> None:
    assert not is_held([sample(shed=10)])


def test_a_ratio_is_taken_round_by_round() -> None:
    # The second round was disturbed by something that slowed both.
    found = ratio(p50, [sample(20), sample(200)], [sample(10), sample(100)])
    assert found == {"ratio": 2.0, "low": 2.0, "high": 2.0}


def test_a_ratio_of_rates_held_has_an_interval_and_is_nothing_where_none_is() -> None:
    held, late = [sample(10)] * 3, [sample(500)] * 3
    ours = {10.0: held, 20.0: held, 40.0: late}
    assert held_ratio(ours, {10.0: held, 20.0: late}) == {"ratio": 2.0, "low": 2.0, "high": 2.0}
    assert held_ratio(ours, {10.0: late}) is None


def test_draws_in_which_the_other_holds_nothing_have_a_bound() -> None:
    """Two calls in three hundred are late, all in one round, which a draw may take three times."""
    quick, disturbed = sample(*[10] * 100), sample(*[10] * 98, 500, 500)
    found = held_ratio({10.0: [quick] * 3, 20.0: [quick] * 3}, {10.0: [quick, quick, disturbed]})
    assert found == {"ratio": 2.0, "low": 2.0, "high": 2.0}


def test_no_answer_at_all_is_no_number() -> None:
    found = row([sample(failed=1)])
    assert (found["failed"], found["per_s"], found["p99_ms"]) == (1, 0, None)

"""The figures that the benchmark computes from its samples."""

from tests.bench.figures import held_ratio, highest_held, is_held, p50, ratio, row
from tests.bench.load import Sample


def sample(*took_ms: float, **counts: int) -> Sample:
    return Sample([ms / 1000 for ms in took_ms], seconds=1.0, **counts)


def test_row_counts_answered_and_unanswered_calls() -> None:
    figures = row([sample(10, 20, failed=1), sample(30, shed=2, degraded=1)])
    assert (figures["calls"], figures["p50_ms"], figures["per_s"]) == (6, 20, 1.5)
    assert (figures["failed"], figures["shed"], figures["degraded"]) == (1, 2, 1)


def test_rate_with_refused_or_degraded_calls_is_not_held() -> None:
    quick = [5.0] * 100
    assert is_held([sample(*quick)])
    assert not is_held([sample(*quick, 100, 100)])
    for kind in ("failed", "shed", "degraded"):
        assert is_held([sample(*quick, **{kind: 1})])
        assert not is_held([sample(*quick, **{kind: 5})])


def test_highest_held_rate_requires_all_lower_rates_held() -> None:
    rates = {5.0: [sample(10)], 10.0: [sample(10)], 20.0: [sample(500)], 40.0: [sample(10)]}
    assert highest_held(rates) == 10
    assert highest_held({5.0: [sample(500)]}) == 0


def test_rate_without_answers_is_not_held() -> None:
    assert not is_held([sample(shed=10)])


def test_ratio_compares_round_by_round() -> None:
    # The second round was disturbed by something that slowed both.
    interval = ratio(p50, [sample(20), sample(200)], [sample(10), sample(100)])
    assert interval == {"ratio": 2.0, "low": 2.0, "high": 2.0}


def test_held_ratio_has_interval_and_is_none_if_no_rate_is_held() -> None:
    held, late = [sample(10)] * 3, [sample(500)] * 3
    ours = {10.0: held, 20.0: held, 40.0: late}
    assert held_ratio(ours, {10.0: held, 20.0: late}) == {"ratio": 2.0, "low": 2.0, "high": 2.0}
    assert held_ratio(ours, {10.0: late}) is None


def test_held_ratio_is_bounded_if_a_draw_holds_no_rate() -> None:
    """Two of three hundred calls are late, both in one round, which a bootstrap draw may pick three times."""
    quick, disturbed = sample(*[10] * 100), sample(*[10] * 98, 500, 500)
    interval = held_ratio({10.0: [quick] * 3, 20.0: [quick] * 3}, {10.0: [quick, quick, disturbed]})
    assert interval == {"ratio": 2.0, "low": 2.0, "high": 2.0}


def test_row_without_answers_has_no_latency() -> None:
    figures = row([sample(failed=1)])
    assert (figures["failed"], figures["per_s"], figures["p99_ms"]) == (1, 0, None)

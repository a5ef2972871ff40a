"""Bootstrap intervals over users."""

import numpy as np
import pytest

from ecrs_models.evaluation import bootstrap
from ecrs_models.evaluation.bootstrap import Interval


def test_all_columns_share_one_resampling() -> None:
    """The difference of two columns therefore compares the same users."""
    values = np.random.default_rng(3).random((50, 1))
    means = bootstrap.resampled_means(np.concatenate([values, values + 0.25], axis=1), samples=20)
    assert means.shape == (20, 2)
    assert means[:, 1] - means[:, 0] == pytest.approx(np.full(20, 0.25))
    assert np.ptp(means[:, 0]) > 0


def test_users_are_drawn_with_replacement() -> None:
    """A sample of the values 0 and 1 has mean 0, 1/2 or 1 with probability 1/4, 1/2 and 1/4."""
    means = bootstrap.resampled_means(np.array([[0.0], [1.0]]), samples=4000)
    values, counts = np.unique(means, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_samples_depend_on_seed_only() -> None:
    values = np.random.default_rng(3).random((30, 1))
    first, second = (bootstrap.resampled_means(values, samples=10) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, bootstrap.resampled_means(values, samples=10, seed=9))


def test_interval_bounds_are_percentiles() -> None:
    interval = bootstrap.interval(0.4, np.linspace(0, 1, 1001))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.4, 0.025, 0.975))
    assert interval.as_dict() == {"mean": 0.4, "low": 0.025, "high": 0.975}


def test_interval_of_normal_values_matches_normal_approximation() -> None:
    values = np.random.default_rng(5).normal(size=(1000, 1))
    (interval,) = bootstrap.intervals(values)
    error = values.std() / np.sqrt(1000)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_interval_of_constant_values_has_no_width() -> None:
    (interval,) = bootstrap.intervals(np.full((7, 1), 0.25))
    assert interval == Interval(0.25, 0.25, 0.25)

"""The slope of memory tells a leak from noise, steps and restarts."""

import numpy as np
import pytest

from tests.attack.slope import slope

TIME = np.arange(0.0, 1200.0, 2.0)
HOUR_S = 3600.0


def noise(seed: int, size: int = len(TIME)) -> np.ndarray:
    """Memory that a garbage collector returns in steps: neighbouring samples are much alike."""
    steps = np.random.default_rng(seed).normal(0, 1, size)
    level = np.zeros(size)
    for index in range(1, size):
        level[index] = 0.9 * level[index - 1] + steps[index]
    return level


def test_a_leak_in_noise_is_found() -> None:
    found = slope([(TIME, 100 + TIME * 36 / HOUR_S + noise(1))])
    assert found is not None
    assert found.low > 0
    assert found.mb_per_h == pytest.approx(36, abs=2 * found.half_width)


def test_noise_has_no_slope_in_most_runs() -> None:
    found = [slope([(TIME, 100 + noise(seed))]) for seed in range(100)]
    assert sum(one is not None and one.low > 0 for one in found) <= 8  # 2.5 are expected


def test_levels_of_restarted_processes_are_no_slope() -> None:
    lives = [(TIME[:200], np.full(200, 100.0)), (TIME[200:], np.full(400, 150.0))]
    found = slope(lives)
    assert found is not None
    assert (found.mb_per_h, found.half_width) == (pytest.approx(0), pytest.approx(0))


def test_too_few_samples_have_no_slope() -> None:
    assert slope([(TIME[:2], np.zeros(2))]) is None

"""Computes percentiles, rates and ratios from samples; a bootstrap over the rounds gives 95 % intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.bench.load import Sample

DRAWS = 2000
"""Bootstrap resamples per interval."""
PERCENTILES = (50, 99, 99.9)
GOAL_MS = 80.0
"""A rate counts as held only if its p99 is below this."""
MAX_MISSED_SHARE = 0.01
"""Largest share of calls that may fail, be shed or be degraded at a rate that counts as held."""


def row(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the figures of all samples together.

    Times are those of answered calls; they are None if no call was answered.
    """
    took_ms = np.concatenate([sample.took_s for sample in samples]) * 1000
    answered = len(took_ms)
    figures = {
        "calls": answered + sum(sample.failed + sample.shed for sample in samples),
        **{
            f"p{percentile}_ms": round(float(np.percentile(took_ms, percentile)), 2) if answered else None
            for percentile in PERCENTILES
        },
        "per_s": round(answered / sum(sample.seconds for sample in samples), 1),
        **{kind: sum(getattr(sample, kind) for sample in samples) for kind in ("failed", "shed", "degraded")},
    }
    late = np.concatenate([sample.late_s for sample in samples])
    return figures | ({"late_p99_ms": round(float(np.percentile(late, 99)) * 1000, 2)} if len(late) else {})


def p50(samples: Sequence[Sample]) -> float:
    return float(np.median(np.concatenate([sample.took_s for sample in samples])))


def per_s(samples: Sequence[Sample]) -> float:
    return sum(len(sample.took_s) for sample in samples) / sum(sample.seconds for sample in samples)


Figure = Callable[[Sequence[Sample]], float]


def ratio(figure: Figure, ours: Sequence[Sample], theirs: Sequence[Sample]) -> dict[str, float]:
    """Return the ratio of `figure` of ours to that of theirs: the mean over rounds, and its 95 % interval."""
    by_round = np.array([figure([a]) / figure([b]) for a, b in zip(ours, theirs, strict=True)])
    return _interval(by_round.mean(), [by_round[rounds].mean() for rounds in _resamples(len(by_round))])


Rates = Mapping[float, Sequence[Sample]]
"""The samples of one contender by rate, one per round."""


def is_held(samples: Sequence[Sample]) -> bool:
    """True if p99 is below GOAL_MS and at most MAX_MISSED_SHARE of the calls missed a full answer."""
    figures = row(samples)
    if figures["p99_ms"] is None or figures["p99_ms"] >= GOAL_MS:
        return False
    missed = figures["failed"] + figures["shed"] + figures["degraded"]
    return missed <= MAX_MISSED_SHARE * figures["calls"]


def highest_held(rates: Rates) -> float:
    """Return the highest rate such that it and all lower rates are held; 0 if the lowest is not."""
    held = 0.0
    for rate in sorted(rates):
        if not is_held(rates[rate]):
            break
        held = rate
    return held


def held_ratio(ours: Rates, theirs: Rates) -> dict[str, float] | None:
    """Return the ratio of our highest held rate to theirs, with its interval; None if they hold no rate.

    In resamples in which they hold no rate, the lowest rate measured for them is used instead.
    """
    rounds = len(next(iter(ours.values())))

    def held(rates: Rates, chosen: Sequence[int]) -> float:
        return highest_held({rate: [samples[index] for index in chosen] for rate, samples in rates.items()})

    if not highest_held(theirs):
        return None
    resampled = [
        held(ours, chosen) / (held(theirs, chosen) or min(theirs)) for chosen in _resamples(rounds, 200)
    ]
    return _interval(highest_held(ours) / highest_held(theirs), resampled)


def _resamples(rounds: int, draws: int = DRAWS) -> np.ndarray:
    """Return indices of rounds drawn with replacement, int64 (draws, rounds)."""
    return np.random.default_rng(0).choice(rounds, (draws, rounds))


def _interval(mean: float, resampled: Sequence[float]) -> dict[str, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"ratio": round(float(mean), 2), "low": round(float(low), 2), "high": round(float(high), 2)}

"""Samples to figures. A bootstrap over the rounds says how sure a ratio is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.bench.load import Sample

DRAWS = 2000
PERCENTILES = (50, 99, 99.9)
GOAL_MS = 80.0
MAY_MISS = 0.01
"""Of the calls of a rate that is held, the share that may fail, be shed or be degraded."""


def row(samples: Sequence[Sample]) -> dict[str, Any]:
    """The samples as one; times are of the calls that were answered, None if none was."""
    took_ms = np.concatenate([sample.took_s for sample in samples]) * 1000
    answered = len(took_ms)
    found = {
        "calls": answered + sum(sample.failed + sample.shed for sample in samples),
        **{
            f"p{of}_ms": round(float(np.percentile(took_ms, of)), 2) if answered else None
            for of in PERCENTILES
        },
        "per_s": round(answered / sum(sample.seconds for sample in samples), 1),
        **{kind: sum(getattr(sample, kind) for sample in samples) for kind in ("failed", "shed", "degraded")},
    }
    late = np.concatenate([sample.late_s for sample in samples])
    return found | ({"late_p99_ms": round(float(np.percentile(late, 99)) * 1000, 2)} if len(late) else {})


def p50(samples: Sequence[Sample]) -> float:
    return float(np.median(np.concatenate([sample.took_s for sample in samples])))


def per_s(samples: Sequence[Sample]) -> float:
    return sum(len(sample.took_s) for sample in samples) / sum(sample.seconds for sample in samples)


Figure = Callable[[Sequence[Sample]], float]


def ratio(figure: Figure, ours: Sequence[Sample], theirs: Sequence[Sample]) -> dict[str, float]:
    """`figure` of ours to that of theirs, round by round: the mean, and a 95 % interval over the rounds."""
    each = np.array([figure([a]) / figure([b]) for a, b in zip(ours, theirs, strict=True)])
    return _interval(each.mean(), [each[chosen].mean() for chosen in _drawn(len(each))])


Rates = Mapping[float, Sequence[Sample]]
"""Of one contender: to each rate its samples, one a round."""


def is_held(samples: Sequence[Sample]) -> bool:
    """Whether p99 is below GOAL_MS and all but MAY_MISS of the calls got a full answer."""
    found = row(samples)
    missed = found["failed"] + found["shed"] + found["degraded"]
    return found["p99_ms"] is not None and found["p99_ms"] < GOAL_MS and missed <= MAY_MISS * found["calls"]


def highest_held(rates: Rates) -> float:
    """The highest rate that is held, as are all below; 0 if none is."""
    held = 0.0
    for rate in sorted(rates):
        if not is_held(rates[rate]):
            break
        held = rate
    return held


def held_ratio(ours: Rates, theirs: Rates) -> dict[str, float] | None:
    """How many times the rate that they hold we do; None if they hold none.

    In the draws of the interval in which they hold none, the lowest of their rates stands for it.
    """
    rounds = len(next(iter(ours.values())))

    def of(rates: Rates, chosen: Sequence[int]) -> float:
        return highest_held({rate: [samples[one] for one in chosen] for rate, samples in rates.items()})

    if not highest_held(theirs):
        return None
    drawn = [of(ours, chosen) / (of(theirs, chosen) or min(theirs)) for chosen in _drawn(rounds, 200)]
    return _interval(highest_held(ours) / highest_held(theirs), drawn)


def _drawn(rounds: int, draws: int = DRAWS) -> np.ndarray:
    return np.random.default_rng(0).choice(rounds, (draws, rounds))


def _interval(mean: float, drawn: Sequence[float]) -> dict[str, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"ratio": round(float(mean), 2), "low": round(float(low), 2), "high": round(float(high), 2)}

"""A breaker: what is known to be away is not waited for.

Closed, calls pass. After FAILURES in a row it opens, and calls fail at once. Once it has rested, a
single call probes: its success closes the breaker, its failure lets it rest again. The libraries at
hand let every call through to probe, and a part that hangs would then hold them all up.
Source: Nygard, "Release It!", 2007.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ecrs.rpc.errors import DeadlineExceeded, Fault, Unavailable
from ecrs.rpc.metrics import BREAKER_STATE

FAILURES_TO_OPEN = 5
OPEN_S = 1.0
MIN_TIMEOUT_S = 0.02
"""Whoever gave a call less time than this learns nothing about the part called."""

CLOSED, OPEN, HALF_OPEN = range(3)


class CircuitBreaker:
    """Of one dependency, named in the metrics."""

    def __init__(self, dependency: str, now: Callable[[], float] = time.monotonic) -> None:
        self._dependency = dependency
        self._now = now
        self._failures = 0
        self._opened = 0.0
        self._become(CLOSED)

    @property
    def is_open(self) -> bool:
        """Whether a call now would not pass: the dependency failed, and nobody knows it back."""
        return self.state == HALF_OPEN or (self.state == OPEN and self._now() - self._opened < OPEN_S)

    @contextmanager
    def guard(self, timeout_s: float) -> Iterator[None]:
        """Around a call that may take `timeout_s`; Unavailable, at once, while the breaker is open.

        Unavailable and DeadlineExceeded from within are failures; any other fault is an answer.
        """
        if self.is_open:
            raise Unavailable(f"{self._dependency} failed {FAILURES_TO_OPEN} times in a row: not asked")
        if self.state == OPEN:
            self._become(HALF_OPEN)
        answered: bool | None = None  # neither, if the caller went away
        try:
            yield
            answered = True
        except Unavailable:
            answered = False
            raise
        except DeadlineExceeded:
            answered = False if timeout_s >= MIN_TIMEOUT_S else None
            raise
        except Fault:
            answered = True
            raise
        finally:
            self._learn(answered)

    def _learn(self, answered: bool | None) -> None:
        if answered:
            self._failures = 0
            self._become(CLOSED)
        elif self.state == HALF_OPEN:
            self._open(self._now() if answered is False else self._opened)  # nothing learned: probe again
        elif answered is False:
            self._failures += 1
            if self._failures >= FAILURES_TO_OPEN:
                self._open(self._now())

    def _open(self, since: float) -> None:
        self._opened = since
        self._become(OPEN)

    def _become(self, state: int) -> None:
        self.state = state
        BREAKER_STATE.labels(self._dependency).set(state)

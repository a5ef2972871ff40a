"""A circuit breaker, so that callers do not wait for a dependency that is known to fail.

While the breaker is closed, calls pass. FAILURES_TO_OPEN failures in a row open it, and calls then fail
immediately. After OPEN_S, a single call probes the dependency: its success closes the breaker, its failure
opens it for another OPEN_S. Existing libraries let every call through while they probe, so a dependency that
hangs would delay all of them.
Source: Nygard, "Release It!", 2007.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ecrs.rpc.errors import DeadlineExceeded, Fault, Unavailable
from ecrs.rpc.metrics import BREAKER_STATE

FAILURES_TO_OPEN = 5
"""Failures in a row that open the breaker."""

OPEN_S = 1.0
"""Time that the breaker stays open before a call may probe the dependency."""

MIN_TIMEOUT_S = 0.02
"""A call with a shorter timeout that exceeds its deadline says nothing about the dependency."""

CLOSED, OPEN, HALF_OPEN = range(3)
"""States, as the metric ecrs_breaker_state shows them."""


class CircuitBreaker:
    """The breaker of one dependency; `dependency` names it in error texts and metrics, `now` is the clock."""

    def __init__(self, dependency: str, now: Callable[[], float] = time.monotonic) -> None:
        self._dependency = dependency
        self._now = now
        self._failures = 0
        self._opened = 0.0
        self._set_state(CLOSED)

    @property
    def is_open(self) -> bool:
        """True if a call would be refused now: the breaker is open, or another call is probing."""
        return self.state == HALF_OPEN or (self.state == OPEN and self._now() - self._opened < OPEN_S)

    @contextmanager
    def guard(self, timeout_s: float) -> Iterator[None]:
        """Wrap a call that may take `timeout_s`. Raises Unavailable immediately while the breaker is open.

        Unavailable and DeadlineExceeded raised by the call count as failures. Any other fault counts as an
        answer, because the dependency responded.
        """
        if self.is_open:
            raise Unavailable(
                f"{self._dependency} failed {FAILURES_TO_OPEN} times in a row: circuit breaker is open"
            )
        if self.state == OPEN:
            self._set_state(HALF_OPEN)
        answered: bool | None = None  # None: the caller cancelled, so nothing was learned
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
            self._record(answered)

    def _record(self, answered: bool | None) -> None:
        if answered:
            self._failures = 0
            self._set_state(CLOSED)
        elif self.state == HALF_OPEN:
            # If nothing was learned, keep the old opening time, so that the next call probes.
            self._open(self._now() if answered is False else self._opened)
        elif answered is False:
            self._failures += 1
            if self._failures >= FAILURES_TO_OPEN:
                self._open(self._now())

    def _open(self, since: float) -> None:
        self._opened = since
        self._set_state(OPEN)

    def _set_state(self, state: int) -> None:
        self.state = state
        BREAKER_STATE.labels(self._dependency).set(state)

"""Load control: how many calls a server handles at a time, by their cost, and how much work it does for each.

A call that would be answered too late is refused immediately, so that its caller can try another replica.
Before it comes to that, `QualityFactor` reduces the work per call.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from ecrs.rpc.interceptors import Context, Handler, Interceptor
from ecrs.rpc.limits import UNLIMITED, MethodLimits
from ecrs.rpc.metrics import CALLS_SHED, IN_FLIGHT, IN_FLIGHT_LIMIT
from ecrs.rpc.parsing import Deserializer

LATE_FRACTION = 0.75
"""An answer is late if it used more than this share of the caller's deadline."""

DECREASE_FACTOR = 0.8
"""After a late answer, the limit becomes this share of the calls that were in flight."""

MIN_LIMIT = 8
"""Floor of the limiter. With this few calls in flight, lateness means a hanging dependency, not overload."""

BULK_SHARE = 1 / 16
"""Share of the limit that calls of more than ordinary cost may use together: of the gateway's 64, one call
for 1,000 items or two for 500."""

LOAD, LARGE_CALLS = "load", "large_calls"
"""Reasons of refused calls, as the metric names them."""

QUALITY_STEP_UP, QUALITY_STEP_DOWN = 0.02, 0.1
"""Added after an answer in time, subtracted after a slow one: they balance if five of six are in time."""


class ConcurrencyLimiter:
    """Adapts the number of concurrent calls, up to `maximum`, to how many are answered in time.

    Additive increase, multiplicative decrease: a late answer cuts the limit to DECREASE_FACTOR of the calls
    in flight, once for all calls that overlap. Answers in time raise it, by 1 for every `limit` answers,
    while more than half of it is in use.
    Source: Jacobson, "Congestion avoidance and control", SIGCOMM 1988; Netflix concurrency-limits applies it
    to calls.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._limit = float(maximum)
        self._cut_at = 0.0  # time.monotonic()

    def __int__(self) -> int:
        return int(self._limit)

    def record(self, started: float, in_flight: float, *, late: bool) -> None:
        """Record the end of a call.

        `started` is when it began, by time.monotonic(); `in_flight` is the cost of the calls that were
        running when it ended, itself included.
        """
        if not late and in_flight * 2 > self._limit:
            self._limit = min(self._maximum, self._limit + 1 / self._limit)
        elif late and in_flight > MIN_LIMIT and started > self._cut_at:
            self._limit = max(MIN_LIMIT, DECREASE_FACTOR * min(in_flight, self._limit))
            self._cut_at = time.monotonic()


class LoadShedder(Interceptor):
    """Refuses calls with RESOURCE_EXHAUSTED while those in flight cost as much as the limiter allows.

    An ordinary call costs 1; `limits` tell the cost of larger ones. The calls that cost more have a share of
    the limit, BULK_SHARE, and one of them is always admitted. Without that share, an ordinary call would wait
    for many of them in every service: each blocks the event loop two to three times as long, at 1,000 items.
    Requests are parsed after the first check. `maximum` bounds the limiter; a call without a deadline counts
    as having `default_s`.
    """

    def __init__(
        self, service: str, maximum: int, default_s: float, limits: Mapping[str, MethodLimits]
    ) -> None:
        super().__init__(service)
        self._limiter = ConcurrencyLimiter(maximum)
        self._default_s = default_s
        self._limits = limits
        self._in_flight = 0.0
        self._bulk_in_flight = 0.0
        for reason in (LOAD, LARGE_CALLS):
            CALLS_SHED.labels(service, reason)
        IN_FLIGHT.labels(service).set_function(lambda: self._in_flight)
        IN_FLIGHT_LIMIT.labels(service).set_function(lambda: int(self._limiter))

    def wrap(self, method: str, handler: Handler, parse: Deserializer) -> tuple[Handler, Deserializer]:
        """Return `handler` behind the limiter."""
        limits = self._limits.get(method, UNLIMITED)

        async def limited(content: bytes, context: Context) -> Any:
            if self._in_flight >= int(self._limiter):
                await self._refuse(context, LOAD, f"calls that cost {self._in_flight:.0f} are in flight")
            request = parse(content)
            cost = limits.cost(request) if isinstance(request, Message) else 1.0
            bulk = cost if cost > 1 else 0.0
            if bulk and self._bulk_in_flight and self._bulk_in_flight + bulk > self._bulk_limit:
                in_flight = f"large calls that cost {self._bulk_in_flight:.1f} are in flight"
                await self._refuse(context, LARGE_CALLS, in_flight)
            self._in_flight += cost
            self._bulk_in_flight += bulk
            started, timeout_s = time.monotonic(), context.time_remaining()
            timeout_s = self._default_s if timeout_s is None else timeout_s
            try:
                return await handler(request, context)
            finally:
                late = time.monotonic() - started > LATE_FRACTION * timeout_s
                self._limiter.record(started, self._in_flight, late=late)
                self._in_flight -= cost
                self._bulk_in_flight -= bulk

        return limited, bytes

    @property
    def _bulk_limit(self) -> float:
        return BULK_SHARE * int(self._limiter)

    async def _refuse(self, context: Context, reason: str, in_flight: str) -> None:
        CALLS_SHED.labels(self._service, reason).inc()
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{in_flight}: try another replica")


class QualityFactor:
    """The share of the work per call that the server can afford, from `minimum` to 1.

    It falls while answers take longer than `goal_s` and rises while they do not. `publish` is called with
    each new value. Source: the quality factor of Twitter's home-mixer (the-algorithm, 2023).
    """

    def __init__(
        self, goal_s: float, minimum: float, publish: Callable[[float], None] = lambda factor: None
    ) -> None:
        self._goal_s = goal_s
        self._minimum = minimum
        self._publish = publish
        self._factor = 1.0
        publish(1.0)

    def share_of(self, amount: int) -> int:
        """Return the affordable part of `amount`, rounded up."""
        return math.ceil(self._factor * amount)

    def record(self, took_s: float) -> None:
        """Record an answer that took `took_s` seconds.

        Do not record answers that waited for a failing dependency: less work would not make them faster.
        """
        step = -QUALITY_STEP_DOWN if took_s > self._goal_s else QUALITY_STEP_UP
        self._factor = min(1.0, max(self._minimum, self._factor + step))
        self._publish(self._factor)

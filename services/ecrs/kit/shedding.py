"""A bound on calls in flight: better refused at once, and asked elsewhere, than answered too late."""

import time
from typing import Any

import grpc

from ecrs.kit.observe import IN_FLIGHT, IN_FLIGHT_LIMIT, SHED, Handler, Interceptor

LATE = 0.75
"""Of its caller's time, an answer that takes more is late."""
CUT = 0.8
"""Of the calls in flight with a late answer, so many are still taken."""
LEAST = 8
"""So few in flight are not too many: that they are late says that a part hangs."""


class Limit:
    """How many calls to take at a time: at most `most`, and as many as are answered in time.

    A late answer says that so many as were in flight with it are too many, if they were more than LEAST; of
    those that were in flight together only the first counts. Answers in time, while more than half of the
    limit are in flight, raise it by 1 in as many of them as it allows.
    Source: additive increase, multiplicative decrease, Jacobson, "Congestion avoidance and control",
    SIGCOMM 1988; Netflix' concurrency-limits has it for calls.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._cut = 0.0  # when, time.monotonic()

    def __int__(self) -> int:
        return int(self._limit)

    def ended(self, begun: float, in_flight: int, *, late: bool) -> None:
        """A call that began at `begun`, time.monotonic(), has ended; `in_flight` were, with it."""
        if not late and in_flight * 2 > self._limit:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        elif late and in_flight > LEAST and begun > self._cut:
            self._limit = max(LEAST, CUT * min(in_flight, self._limit))
            self._cut = time.monotonic()


class Shedder(Interceptor):
    """Ends a call as RESOURCE_EXHAUSTED while as many as the limit allows, at most `most`, are in flight. A
    caller who set no deadline has given `default_s`."""

    def __init__(self, service: str, most: int, default_s: float) -> None:
        super().__init__(service)
        self._limit = Limit(most)
        self._default_s = default_s
        self._in_flight = 0
        self._shed = SHED.labels(service)
        IN_FLIGHT.labels(service).set_function(lambda: self._in_flight)
        IN_FLIGHT_LIMIT.labels(service).set_function(lambda: int(self._limit))

    def around(self, method: str, answer: Handler) -> Handler:
        async def bounded(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if self._in_flight >= int(self._limit):
                self._shed.inc()
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._in_flight} calls are in flight: ask another replica",
                )
            self._in_flight += 1
            begun, given_s = time.monotonic(), context.time_remaining()
            given_s = self._default_s if given_s is None else given_s
            try:
                return await answer(request, context)
            finally:
                late = time.monotonic() - begun > LATE * given_s
                self._limit.ended(begun, self._in_flight, late=late)
                self._in_flight -= 1

        return bounded

"""A bound on calls in flight: better refused at once, and asked elsewhere, than answered too late."""

from typing import Any

import grpc

from ecrs.kit.observe import IN_FLIGHT, IN_FLIGHT_LIMIT, SHED, Handler, Interceptor


class Shedder(Interceptor):
    """Ends a call as RESOURCE_EXHAUSTED while `limit` others are in flight."""

    def __init__(self, service: str, limit: int) -> None:
        super().__init__(service)
        self._limit = limit
        self._in_flight = 0
        self._shed = SHED.labels(service)
        IN_FLIGHT.labels(service).set_function(lambda: self._in_flight)
        IN_FLIGHT_LIMIT.labels(service).set(limit)

    def around(self, method: str, answer: Handler) -> Handler:
        async def bounded(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if self._in_flight >= self._limit:
                self._shed.inc()
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._limit} calls are in flight: ask another replica",
                )
            self._in_flight += 1
            try:
                return await answer(request, context)
            finally:
                self._in_flight -= 1

        return bounded

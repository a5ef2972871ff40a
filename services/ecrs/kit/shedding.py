"""A bound on calls in flight: better refused at once, and asked elsewhere, than answered too late."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ecrs.kit.observe import SHED


class Shedder(grpc.aio.ServerInterceptor):
    """Ends a call as RESOURCE_EXHAUSTED while `limit` others are in flight; not those of health and
    reflection."""

    def __init__(self, service: str, limit: int) -> None:
        self._service = service
        self._limit = limit
        self._in_flight = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler_call_details.method.startswith("/grpc."):
            return handler
        answer = handler.unary_unary

        async def bounded(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if self._in_flight >= self._limit:
                SHED.labels(self._service).inc()
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._limit} calls are in flight: try another replica",
                )
            self._in_flight += 1
            try:
                return await answer(request, context)
            finally:
                self._in_flight -= 1

        return grpc.unary_unary_rpc_method_handler(
            bounded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

"""The gRPC health service, with a limit on the number of watches and a check of its requests."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest

from ecrs.rpc.interceptors import Context, Handler, MethodHandler
from ecrs.rpc.metrics import HEALTH_WATCHES
from ecrs.rpc.parsing import Deserializer, TooLong, bounded_parser

MAX_WATCHES = 64
"""Most calls of `Watch` at a time. Each is a stream and a task that last until the caller ends them."""

MAX_REQUEST_BYTES = 1024
"""Longest request, which contains the name of a service."""


class LimitedHealthServicer(HealthServicer):
    """`HealthServicer` that refuses watches above MAX_WATCHES with RESOURCE_EXHAUSTED."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._watches = 0
        HEALTH_WATCHES.labels(service).set_function(lambda: self._watches)

    async def Watch(  # noqa: N802 - the name in the health protocol
        self, request: HealthCheckRequest, context: Context
    ) -> None:
        """Stream the status of a service, if fewer than MAX_WATCHES callers do so."""
        if self._watches >= MAX_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._watches} watches are open: call Check instead"
            )
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1


class HealthRequestCheck(grpc.aio.ServerInterceptor):
    """Refuses health checks that cannot be parsed or are too long, as INVALID_ARGUMENT.

    gRPC itself would end them as UNKNOWN, with the text of a Python exception.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler:
        """Return the handler of a health check with the refusal around it, any other handler as it is."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/grpc.health."):
            return handler
        parser = bounded_parser(cast(Deserializer, handler.request_deserializer), MAX_REQUEST_BYTES)
        unary = handler.unary_unary is not None
        answer = cast(Handler, handler.unary_unary if unary else handler.unary_stream)

        async def refuse_or_answer(request: Any, context: Context) -> Any:
            if request is None or isinstance(request, TooLong):
                name = HealthCheckRequest.DESCRIPTOR.full_name
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a valid {name}")
            return await answer(request, context)

        wrap = grpc.unary_unary_rpc_method_handler if unary else grpc.unary_stream_rpc_method_handler
        return wrap(refuse_or_answer, parser, handler.response_serializer)

"""Server interceptors: the base class, and the one that observes every call and reports its errors."""

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from ecrs.rpc import tracing
from ecrs.rpc.errors import BadRequest, Fault
from ecrs.rpc.limits import UNLIMITED, MethodLimits
from ecrs.rpc.metrics import CALL_SECONDS, CALLS
from ecrs.rpc.parsing import Deserializer, TooLong, bounded_parser

log = structlog.get_logger()

SUCCESS = 200
"""`error.code` of a successful reply."""

MAX_LOG_ID_CHARS = 128
"""Longest log_id of a request. It is repeated in every log line of the request, in every service."""

MAX_LOGGED_CHARS = 1_000
"""Longest error text in the log. The text about unknown items repeats up to 1,000 ids."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""The second argument of a servicer's method."""

Handler = Callable[[Any, Context], Awaitable[Any]]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


def new_log_id() -> str:
    """Return a random log_id, for a request that came without one: 32 hexadecimal digits."""
    return uuid.uuid4().hex


class Interceptor(grpc.aio.ServerInterceptor, ABC):
    """Base of interceptors that wrap the handlers of the platform's methods, all of which are unary.

    Health checks and reflection are passed through. gRPC requests the handler at every call, so each
    method's handler is wrapped once and kept.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._handlers: dict[str, MethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler:
        """Return the wrapped handler of the called method, or gRPC's own for health and reflection."""
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or method.startswith("/grpc."):
            return handler
        parse = cast(Deserializer, handler.request_deserializer)
        wrapped, deserializer = self.wrap(method, cast(Handler, handler.unary_unary), parse)
        self._handlers[method] = grpc.unary_unary_rpc_method_handler(
            wrapped, request_deserializer=deserializer, response_serializer=handler.response_serializer
        )
        return self._handlers[method]

    @abstractmethod
    def wrap(self, method: str, handler: Handler, parse: Deserializer) -> tuple[Handler, Deserializer]:
        """Return the function to call in place of `handler`, and the one to parse its requests with.

        `parse` is what the wrapped handler parses its requests with.
        """


class CallObserver(Interceptor):
    """Times, counts and logs each call, gives it a log_id if it has none, and turns faults into replies.

    A Fault becomes a reply with its code and text in `error`; a successful reply gets code 200. A request
    that is longer than the method's limit is not parsed. One that cannot be parsed ends as INVALID_ARGUMENT,
    an unexpected exception as INTERNAL, with the log_id to find it in the log and without internals.
    """

    def __init__(self, service: str, limits: Mapping[str, MethodLimits]) -> None:
        super().__init__(service)
        self._limits = limits

    def wrap(self, method: str, handler: Handler, parse: Deserializer) -> tuple[Handler, Deserializer]:
        """Return `handler` with the observation around it."""
        request_type, reply_type = _message_types(method)
        max_bytes = self._limits.get(method, UNLIMITED).max_bytes

        async def observed(request: Any, context: Context) -> Any:
            if request is None:
                CALLS.labels(self._service, method, "INVALID_ARGUMENT", SUCCESS).inc()
                log.info("rpc", method=method, grpc_code="INVALID_ARGUMENT")
                name = request_type.DESCRIPTOR.full_name
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a valid {name}")
            too_long = request if isinstance(request, TooLong) else None
            request = request_type() if too_long else request
            request.log_id = request.log_id or new_log_id()
            started = time.perf_counter()
            grpc_code, error_code, detail = "OK", SUCCESS, {}
            log_id = request.log_id[:MAX_LOG_ID_CHARS]
            with (
                tracing.server_span(method, context),
                structlog.contextvars.bound_contextvars(log_id=log_id, **tracing.log_fields()),
            ):
                try:
                    if too_long:
                        raise BadRequest(f"the request: at most {max_bytes} bytes, got {too_long.size}")
                    if len(request.log_id) > MAX_LOG_ID_CHARS:
                        got = len(request.log_id)
                        raise BadRequest(f"log_id: at most {MAX_LOG_ID_CHARS} characters, got {got}")
                    reply = await handler(request, context)
                    reply.error.code = SUCCESS
                except Fault as fault:
                    error_code, detail = fault.code, {"error": fault.text[:MAX_LOGGED_CHARS]}
                    reply = reply_type(error={"code": fault.code, "text": fault.text})
                except asyncio.CancelledError:
                    grpc_code = "CANCELLED"
                    raise
                except Exception:
                    grpc_code = "INTERNAL"
                    log.exception("unexpected", method=method)
                    await context.abort(grpc.StatusCode.INTERNAL, f"internal error (log_id {request.log_id})")
                finally:
                    took = time.perf_counter() - started
                    CALLS.labels(self._service, method, grpc_code, error_code).inc()
                    CALL_SECONDS.labels(self._service, method).observe(took)
                    tracing.annotate_span(log_id=log_id, grpc_code=grpc_code, error_code=error_code)
                    log.info(
                        "rpc",
                        method=method,
                        took_ms=round(took * 1000, 2),
                        grpc_code=grpc_code,
                        error_code=error_code,
                        **detail,
                    )
            return reply

        return observed, bounded_parser(parse, max_bytes)


def _message_types(method: str) -> tuple[type[Message], type[Message]]:
    """Return the message classes of a method's request and reply."""
    service, _, name = method.lstrip("/").rpartition("/")
    descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    return (
        message_factory.GetMessageClass(descriptor.input_type),
        message_factory.GetMessageClass(descriptor.output_type),
    )

"""Server interceptors: the base class, and the one that observes every call and reports its errors."""

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from ecrs.rpc import tracing
from ecrs.rpc.errors import BadRequest, Fault
from ecrs.rpc.metrics import CALL_SECONDS, CALLS

log = structlog.get_logger()

SUCCESS = 200
"""`error.code` of a successful reply."""

MAX_LOG_ID_CHARS = 128
"""Longest log_id of a request. It is repeated in every log line of the request, in every service."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""The second argument of a servicer's method."""

Deserializer = Callable[[bytes], Any]
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
        self._handlers[method] = grpc.unary_unary_rpc_method_handler(
            self.wrap(method, cast(Handler, handler.unary_unary)),
            request_deserializer=_parse_or_none(cast(Deserializer, handler.request_deserializer)),
            response_serializer=handler.response_serializer,
        )
        return self._handlers[method]

    @abstractmethod
    def wrap(self, method: str, handler: Handler) -> Handler:
        """Return the function that is called in place of `handler`."""


class CallObserver(Interceptor):
    """Times, counts and logs each call, gives it a log_id if it has none, and turns faults into replies.

    A Fault becomes a reply with its code and text in `error`; a successful reply gets code 200. A request
    that cannot be parsed ends as INVALID_ARGUMENT, an unexpected exception as INTERNAL, with the log_id to
    find it in the log and without internals.
    """

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Return `handler` with the observation around it."""
        request_type, reply_type = _message_types(method)

        async def observed(request: Any, context: Context) -> Any:
            if request is None:
                CALLS.labels(self._service, method, "INVALID_ARGUMENT", SUCCESS).inc()
                log.info("rpc", method=method, grpc_code="INVALID_ARGUMENT")
                name = request_type.DESCRIPTOR.full_name
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a valid {name}")
            request.log_id = request.log_id or new_log_id()
            started = time.perf_counter()
            grpc_code, error_code, detail = "OK", SUCCESS, {}
            log_id = request.log_id[:MAX_LOG_ID_CHARS]
            with (
                tracing.server_span(method, context),
                structlog.contextvars.bound_contextvars(log_id=log_id, **tracing.log_fields()),
            ):
                try:
                    if len(request.log_id) > MAX_LOG_ID_CHARS:
                        got = len(request.log_id)
                        raise BadRequest(f"log_id: at most {MAX_LOG_ID_CHARS} characters, got {got}")
                    reply = await handler(request, context)
                    reply.error.code = SUCCESS
                except Fault as fault:
                    error_code, detail = fault.code, {"error": fault.text}
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

        return observed


def _parse_or_none(deserialize: Deserializer) -> Deserializer:
    """Return `deserialize`, made to return None for bytes that it cannot parse.

    gRPC itself would end the call as UNKNOWN with the text of Python's exception.
    """

    def parse(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError:
            return None

    return parse


def _message_types(method: str) -> tuple[type[Message], type[Message]]:
    """Return the message classes of a method's request and reply."""
    service, _, name = method.lstrip("/").rpartition("/")
    descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    return (
        message_factory.GetMessageClass(descriptor.input_type),
        message_factory.GetMessageClass(descriptor.output_type),
    )

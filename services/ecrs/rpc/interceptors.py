"""TODO ecrs.rpc.interceptors."""

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
MAX_LOG_ID_CHARS = 128
"""A log_id is in every log line of an answer, of every service."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""The second argument of a method of a service."""

Deserializer = Callable[[bytes], Any]
Handler = Callable[[Any, Context], Awaitable[Any]]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


def new_log_id() -> str:
    return uuid.uuid4().hex


class Interceptor(grpc.aio.ServerInterceptor, ABC):
    """Puts something around each call of the platform's services, which are unary; health and reflection
    it leaves alone. gRPC asks for a method's handler at each call: it is made once."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._handlers: dict[str, MethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler:
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or method.startswith("/grpc."):
            return handler
        self._handlers[method] = grpc.unary_unary_rpc_method_handler(
            self.around(method, cast(Handler, handler.unary_unary)),
            request_deserializer=_lenient(cast(Deserializer, handler.request_deserializer)),
            response_serializer=handler.response_serializer,
        )
        return self._handlers[method]

    @abstractmethod
    def around(self, method: str, answer: Handler) -> Handler:
        """What answers in the place of `answer`."""


class CallObserver(Interceptor):
    """Names, times, counts and logs each call.

    A reply carries `error`: a Fault fills it, success is 200. What is no message of the request's type
    ends the call as INVALID_ARGUMENT; anything unexpected as INTERNAL, with the log_id to find it by
    and no internals.
    """

    def around(self, method: str, answer: Handler) -> Handler:
        request_type, reply_type = _types(method)

        async def observed(request: Any, context: Context) -> Any:
            if request is None:
                CALLS.labels(self._service, method, "INVALID_ARGUMENT", SUCCESS).inc()
                log.info("rpc", method=method, grpc_code="INVALID_ARGUMENT")
                name = request_type.DESCRIPTOR.full_name
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request is no valid {name}")
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
                    reply = await answer(request, context)
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


def _lenient(deserialize: Deserializer) -> Deserializer:
    """`deserialize`, but None for what is no message: gRPC would answer UNKNOWN with Python's exception."""

    def read(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError:
            return None

    return read


def _types(method: str) -> tuple[type[Message], type[Message]]:
    """Of a method's request and reply."""
    service, _, name = method.lstrip("/").rpartition("/")
    found = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    return message_factory.GetMessageClass(found.input_type), message_factory.GetMessageClass(
        found.output_type
    )

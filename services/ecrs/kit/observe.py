"""Metrics, spans and the log line of an RPC, and the one place where a Fault becomes a reply."""

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from prometheus_client import Counter, Gauge, Histogram

from ecrs.kit import tracing
from ecrs.kit.errors import BadRequest, Fault

SUCCESS = 200
LOG_ID_CHARS = 128
"""A log_id is in every log line of an answer, of every service."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

CALLS = Counter(
    "ecrs_rpc_total",
    "Calls answered; error_code is the reply's own, which gRPC tooling cannot see",
    ["service", "method", "grpc_code", "error_code"],
)
CALL_SECONDS = Histogram("ecrs_rpc_seconds", "Time to answer a call", ["service", "method"], buckets=SECONDS)
STAGE_SECONDS = Histogram(
    "ecrs_stage_seconds", "Time a stage of an answer took", ["stage", "outcome"], buckets=SECONDS
)
DEPENDENCY_SECONDS = Histogram(
    "ecrs_dependency_seconds",
    "Time a store or a model took, checks included",
    ["dependency", "outcome"],
    buckets=SECONDS,
)
CANDIDATES = Counter("ecrs_candidates_total", "Candidates, by each channel that found them", ["channel"])
RECOMMENDED = Counter(
    "ecrs_recommended_total", "Items recommended, by each channel that found them", ["channel"]
)
EMPTY = Counter("ecrs_empty_answers_total", "Answers without a single item")
BREAKER = Gauge(
    "ecrs_breaker_state", "Of a dependency: 0 closed, 1 open, 2 half open, which is probing", ["dependency"]
)
DEGRADED = Counter("ecrs_degraded_total", "Answers in which a fallback stood in", ["stage", "fallback"])
QUALITY = Gauge("ecrs_quality", "Share of the candidates that the gateway ranks; below 1 under load")
IN_FLIGHT = Gauge("ecrs_in_flight", "Calls being answered", ["service"])
IN_FLIGHT_LIMIT = Gauge("ecrs_in_flight_limit", "How many calls are taken at a time", ["service"])
SHED = Counter("ecrs_shed_total", "Calls refused because too many were in flight", ["service"])
SERVING = Gauge("ecrs_serving", "1 while the service can do its job", ["service"])
DEPENDENCY = Gauge(
    "ecrs_dependency_up",
    "0 while the service does its job without this dependency",
    ["service", "dependency"],
)
TASKS = Gauge("ecrs_tasks", "Of asyncio, under way: a few, and a few a call in hand", ["service"])
BUNDLE = Gauge("ecrs_bundle_info", "The bundle version in use; the value is 1", ["service", "version"])

log = structlog.get_logger()

Handler = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


def new_log_id() -> str:
    return uuid.uuid4().hex


def show_bundle(service: str, version: str) -> None:
    """Publish the one version that `service` now uses."""
    for labels in [labels for labels, *_ in BUNDLE._metrics.items() if labels[0] == service]:
        BUNDLE.remove(*labels)
    BUNDLE.labels(service, version).set(1)


@dataclass
class Timing:
    """How something went, once it is over."""

    took_s: float = 0.0
    outcome: str = "error"  # unless it ends in a way that has a name


@contextmanager
def timed(seconds: Histogram, what: str) -> Iterator[Timing]:
    """Observe how long the body takes in `seconds`, whose labels are what it is and how it ends; in a trace
    it is a span."""
    timing = Timing()
    with tracing.asking(what):
        started = time.perf_counter()
        try:
            yield timing
            timing.outcome = "ok"
        except Fault as fault:
            timing.outcome = fault.outcome
            raise
        except asyncio.CancelledError:
            timing.outcome = "cancelled"
            raise
        finally:
            timing.took_s = time.perf_counter() - started
            seconds.labels(what, timing.outcome).observe(timing.took_s)
            tracing.note(outcome=timing.outcome)


def count_channels(counter: Counter, counts: Mapping[str, int]) -> None:
    """Add what is counted by channel."""
    for channel, count in counts.items():
        counter.labels(channel).inc(count)


class Interceptor(grpc.aio.ServerInterceptor, ABC):
    """Puts something around each call of the platform's services, which are unary; health and reflection
    it leaves alone. gRPC asks for a method's handler at each call: it is made once."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or method.startswith("/grpc."):
            return handler
        self._handlers[method] = grpc.unary_unary_rpc_method_handler(
            self.around(method, handler.unary_unary),
            request_deserializer=_lenient(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return self._handlers[method]

    @abstractmethod
    def around(self, method: str, answer: Handler) -> Handler:
        """What answers in the place of `answer`."""


class Observer(Interceptor):
    """Names, times, counts and logs each call.

    A reply carries `error`: a Fault fills it, success is 200. What is no message of the request's type
    ends the call as INVALID_ARGUMENT; anything unexpected as INTERNAL, with the log_id to find it by
    and no internals.
    """

    def around(self, method: str, answer: Handler) -> Handler:
        request_type, reply_type = _types(method)

        async def observed(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if request is None:
                CALLS.labels(self._service, method, "INVALID_ARGUMENT", SUCCESS).inc()
                log.info("rpc", method=method, grpc_code="INVALID_ARGUMENT")
                name = request_type.DESCRIPTOR.full_name
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request is no valid {name}")
            request.log_id = request.log_id or new_log_id()
            started = time.perf_counter()
            grpc_code, error_code, detail = "OK", SUCCESS, {}
            log_id = request.log_id[:LOG_ID_CHARS]
            with (
                tracing.answering(method, context),
                structlog.contextvars.bound_contextvars(log_id=log_id, **tracing.log_fields()),
            ):
                try:
                    if len(request.log_id) > LOG_ID_CHARS:
                        got = len(request.log_id)
                        raise BadRequest(f"log_id: at most {LOG_ID_CHARS} characters, got {got}")
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
                    tracing.note(log_id=log_id, grpc_code=grpc_code, error_code=error_code)
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


def _lenient(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
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

"""Tracing: the work that one request causes in all five services, as a tree of timed spans.

Tracing is on if OTEL_EXPORTER_OTLP_ENDPOINT is set, the address that spans are sent to. If it is off,
OpenTelemetry is not imported and each function here costs one comparison. A trace begins where a service
accepts a call, or earlier, at a caller that sent a `traceparent`. Work outside of a call, such as a health
check, is not traced.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc
    from opentelemetry.sdk.trace import SpanProcessor

    from ecrs.rpc.spans import Spans

Value = str | bool | int | float
Metadata = tuple[tuple[str, str], ...]

_NO_SPAN = nullcontext()
_spans: "Spans | None" = None


@contextmanager
def exporting_spans(service: str) -> Iterator[None]:
    """Export the spans of `service` while the context is open, if OTEL_EXPORTER_OTLP_ENDPOINT is set."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        yield
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    with recording_spans(service, BatchSpanProcessor(OTLPSpanExporter())):
        yield


@contextmanager
def recording_spans(service: str, processor: "SpanProcessor") -> Iterator[None]:
    """Pass the spans of this process to `processor` while the context is open."""
    global _spans
    from ecrs.rpc.spans import Spans

    _spans = Spans(service, processor)
    try:
        yield
    finally:
        _spans.stop()
        _spans = None


def server_span(method: str, context: "grpc.aio.ServicerContext[Any, Any]") -> AbstractContextManager[Any]:
    """Return the span of a call being answered, in the caller's trace or else in a new one."""
    return _NO_SPAN if _spans is None else _spans.server_span(method, context.invocation_metadata() or ())


def client_span(name: str) -> AbstractContextManager[Any]:
    """Return the span of a call to another service, a store or a model."""
    return _NO_SPAN if _spans is None else _spans.client_span(name)


def metadata() -> Metadata:
    """Return the metadata to send with a call, so that the callee continues the trace; none if off."""
    return () if _spans is None else _spans.metadata()


def annotate_span(**attributes: Value) -> None:
    """Set attributes of the current span."""
    if _spans is not None:
        _spans.annotate(attributes)


def add_span_event(name: str, **attributes: Value) -> None:
    """Add an event to the current span."""
    if _spans is not None:
        _spans.add_event(name, attributes)


def log_fields() -> dict[str, str]:
    """Return the fields of a log line that identify the trace: `trace_id`, or none if tracing is off."""
    return {} if _spans is None else _spans.log_fields()

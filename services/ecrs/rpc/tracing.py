"""Traces: what one request caused, in all five services, as a tree of timed spans.

On where OTEL_EXPORTER_OTLP_ENDPOINT says where to send them. Off, nothing that records is imported and each
function here costs a comparison. A trace begins where a service takes a call, or before, at a caller
who sent a `traceparent`; what happens outside of one, such as a check, is in none.
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

_NOTHING = nullcontext()
_spans: "Spans | None" = None


@contextmanager
def exporting_spans(service: str) -> Iterator[None]:
    """Record traces of `service` for the time of the context, if the environment says where to send them."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        yield
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    with recording_spans(service, BatchSpanProcessor(OTLPSpanExporter())):
        yield


@contextmanager
def recording_spans(service: str, processor: "SpanProcessor") -> Iterator[None]:
    """Give the spans of this process to `processor` for the time of the context."""
    global _spans
    from ecrs.rpc.spans import Spans

    _spans = Spans(service, processor)
    try:
        yield
    finally:
        _spans.stop()
        _spans = None


def server_span(method: str, context: "grpc.aio.ServicerContext[Any, Any]") -> AbstractContextManager[Any]:
    """Around the answer to a call: a span of the caller's trace, or the first one of a new trace."""
    return _NOTHING if _spans is None else _spans.answering(method, context.invocation_metadata() or ())


def client_span(what: str) -> AbstractContextManager[Any]:
    """Around a question to another service, a store or a model."""
    return _NOTHING if _spans is None else _spans.asking(what)


def metadata() -> Metadata | None:
    """To send with a call, so that the trace goes on where it is answered."""
    return None if _spans is None else _spans.metadata()


def annotate_span(**attributes: Value) -> None:
    """Say something of the span that is under way."""
    if _spans is not None:
        _spans.note(attributes)


def add_span_event(name: str, **attributes: Value) -> None:
    """Something happened in the span that is under way."""
    if _spans is not None:
        _spans.event(name, attributes)


def log_fields() -> dict[str, str]:
    """For the log lines, to find the trace by."""
    return {} if _spans is None else _spans.log_fields()

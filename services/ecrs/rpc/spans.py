"""OpenTelemetry spans. `ecrs.rpc.tracing` imports this module only if tracing is on."""

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import propagate
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, format_trace_id, get_current_span

STOP_LIMIT_S = 1.0
"""Longest time that exporting the last spans may delay the end of a service."""

Attributes = Mapping[str, str | bool | int | float]


class Spans:
    """Records the spans of one process and gives them to `processor`.

    OTEL_TRACES_SAMPLER in the environment sets the sampling; by default every trace is recorded.
    """

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        resource = Resource.create({"service.namespace": "ecrs", "service.name": service})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("ecrs")

    def server_span(self, method: str, metadata: Iterable[tuple[str, Any]]) -> AbstractContextManager[Any]:
        """Start the span of a call that this process answers, in the trace that `metadata` continues."""
        name = method.removeprefix("/")
        return self._tracer.start_as_current_span(
            name,
            propagate.extract(dict(metadata)),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": name},
            record_exception=False,
        )

    def client_span(self, name: str) -> AbstractContextManager[Any]:
        """Start the span of a call that this process makes; no span outside of a trace."""
        if not get_current_span().get_span_context().is_valid:
            return nullcontext()
        return self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT, record_exception=False)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the call metadata that continues the current trace in another service."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return tuple(carrier.items())

    def annotate(self, attributes: Attributes) -> None:
        """Set attributes of the current span, each prefixed with `ecrs.`."""
        get_current_span().set_attributes(_prefixed(attributes))

    def add_event(self, name: str, attributes: Attributes) -> None:
        """Add an event to the current span, its attributes prefixed with `ecrs.`."""
        get_current_span().add_event(name, _prefixed(attributes))

    def log_fields(self) -> dict[str, str]:
        """Return the `trace_id` of the current span, 32 hexadecimal digits."""
        return {"trace_id": format_trace_id(get_current_span().get_span_context().trace_id)}

    def stop(self) -> None:
        """Export the remaining spans, for at most STOP_LIMIT_S.

        The SDK's own shutdown waits ten seconds for a collector that does not answer.
        """
        shutdown = threading.Thread(target=self._provider.shutdown, name="span shutdown", daemon=True)
        shutdown.start()
        shutdown.join(STOP_LIMIT_S)


def _prefixed(attributes: Attributes) -> dict[str, str | bool | int | float]:
    return {f"ecrs.{name}": value for name, value in attributes.items()}

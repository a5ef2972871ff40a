"""Spans by OpenTelemetry. Imported by kit.tracing, and only where traces are on."""

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import propagate
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, format_trace_id, get_current_span

STOP_LIMIT_S = 1.0
"""What is left of a trace may hold up the end of a service for so long, should nobody take it."""

Attributes = Mapping[str, str | bool | int | float]


class Spans:
    """What one process records. Sampling is the environment's to say, OTEL_TRACES_SAMPLER, by default all."""

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        resource = Resource.create({"service.namespace": "ecrs", "service.name": service})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("ecrs")

    def answering(self, method: str, metadata: Iterable[tuple[str, Any]]) -> AbstractContextManager[Any]:
        name = method.removeprefix("/")
        return self._tracer.start_as_current_span(
            name,
            propagate.extract(dict(metadata)),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": name},
            record_exception=False,
        )

    def asking(self, what: str) -> AbstractContextManager[Any]:
        if not get_current_span().get_span_context().is_valid:
            return nullcontext()
        return self._tracer.start_as_current_span(what, kind=SpanKind.CLIENT, record_exception=False)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return tuple(carrier.items())

    def note(self, attributes: Attributes) -> None:
        get_current_span().set_attributes(_named(attributes))

    def event(self, name: str, attributes: Attributes) -> None:
        get_current_span().add_event(name, _named(attributes))

    def log_fields(self) -> dict[str, str]:
        return {"trace_id": format_trace_id(get_current_span().get_span_context().trace_id)}

    def stop(self) -> None:
        """Send what is left, for STOP_LIMIT_S at most: the SDK's own end waits ten seconds for a collector
        that is away."""
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(STOP_LIMIT_S)


def _named(attributes: Attributes) -> dict[str, str | bool | int | float]:
    return {f"ecrs.{name}": value for name, value in attributes.items()}

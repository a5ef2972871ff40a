"""Records what happened to one request: the duration and outcome of its stages, and the fallbacks used."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ecrs.gateway.answer import Degradation, StageReport
from ecrs.metrics import DEGRADED_ANSWERS, STAGE_SECONDS
from ecrs.rpc import tracing
from ecrs.rpc.metrics import timed


@dataclass
class RequestTrace:
    """Collects stages and fallbacks for the answer, and reports them as metrics and span events."""

    stages: list[StageReport] = field(default_factory=list)
    degraded: list[Degradation] = field(default_factory=list)

    def degrade(self, stage: str, fallback: str) -> None:
        """Record that `fallback` replaced stage `stage`."""
        self.degraded.append(Degradation(stage, fallback))
        DEGRADED_ANSWERS.labels(stage, fallback).inc()
        tracing.add_span_event("degraded", stage=stage, fallback=fallback)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run the body of the context as stage `name`, and record its duration and outcome."""
        try:
            with timed(STAGE_SECONDS, name) as timing:
                yield
        finally:
            self.stages.append(StageReport(name, timing.took_s * 1000, timing.outcome))

    def skip(self, name: str) -> None:
        """Record that this request does not need stage `name`."""
        self.stages.append(StageReport(name, 0.0, "skipped"))

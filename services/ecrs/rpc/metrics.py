"""Metrics of calls, dependencies and the server itself, and the timer that feeds them."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from ecrs.rpc import tracing
from ecrs.rpc.errors import Fault

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

CALLS = Counter(
    "ecrs_rpc_total",
    "Calls answered; error_code is the code in the reply, which gRPC tooling cannot see",
    ["service", "method", "grpc_code", "error_code"],
)
CALL_SECONDS = Histogram(
    "ecrs_rpc_seconds", "Time to answer a call", ["service", "method"], buckets=LATENCY_BUCKETS_S
)
DEPENDENCY_SECONDS = Histogram(
    "ecrs_dependency_seconds",
    "Time of a call to a store or a model, health checks included",
    ["dependency", "outcome"],
    buckets=LATENCY_BUCKETS_S,
)
BREAKER_STATE = Gauge(
    "ecrs_breaker_state", "Circuit breaker of a dependency: 0 closed, 1 open, 2 half-open", ["dependency"]
)
IN_FLIGHT = Gauge("ecrs_in_flight", "Cost of the calls in flight; an ordinary call costs 1", ["service"])
IN_FLIGHT_LIMIT = Gauge(
    "ecrs_in_flight_limit", "Cost of the calls that the service accepts at a time", ["service"]
)
CALLS_SHED = Counter(
    "ecrs_shed_total",
    "Calls refused because too many were in flight (`load`), or too many large ones (`large_calls`)",
    ["service", "reason"],
)
HEALTH_WATCHES = Gauge("ecrs_health_watches", "Open calls of Watch of the health service", ["service"])
SERVING = Gauge("ecrs_serving", "1 while the service can do its job", ["service"])
DEPENDENCY_UP = Gauge(
    "ecrs_dependency_up",
    "0 while this dependency fails and the service works without it",
    ["service", "dependency"],
)
TASK_FAILURES = Counter(
    "ecrs_task_failures_total",
    "Background tasks of the service that ended unexpectedly and were started again",
    ["service", "task"],
)
LOG_LINES_DROPPED = Counter(
    "ecrs_log_lines_dropped_total",
    "Log lines that were not written, because of a slow reader (queue_full) or a full disk (write_error)",
    ["service", "reason"],
)
ASYNCIO_TASKS = Gauge(
    "ecrs_tasks",
    "Live asyncio tasks: about ten when idle, a few more per call in flight; a steady climb is a leak",
    ["service"],
)


@dataclass
class Timing:
    """The duration and the outcome of a timed block, set when the block ends."""

    took_s: float = 0.0
    outcome: str = "error"  # for an exception that is neither a Fault nor a cancellation


@contextmanager
def timed(seconds: Histogram, name: str) -> Iterator[Timing]:
    """Observe the duration of the block in `seconds`, labelled with `name` and the outcome.

    The outcome is "ok", a fault's `outcome`, "cancelled" or "error". In a trace, the block is a span.
    """
    timing = Timing()
    with tracing.client_span(name):
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
            seconds.labels(name, timing.outcome).observe(timing.took_s)
            tracing.annotate_span(outcome=timing.outcome)

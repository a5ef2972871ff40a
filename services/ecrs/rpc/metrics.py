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
    "Calls answered; error_code is the reply's own, which gRPC tooling cannot see",
    ["service", "method", "grpc_code", "error_code"],
)
CALL_SECONDS = Histogram(
    "ecrs_rpc_seconds", "Time to answer a call", ["service", "method"], buckets=LATENCY_BUCKETS_S
)
DEPENDENCY_SECONDS = Histogram(
    "ecrs_dependency_seconds",
    "Time a store or a model took, checks included",
    ["dependency", "outcome"],
    buckets=LATENCY_BUCKETS_S,
)
BREAKER_STATE = Gauge(
    "ecrs_breaker_state", "Of a dependency: 0 closed, 1 open, 2 half open, which is probing", ["dependency"]
)
IN_FLIGHT = Gauge("ecrs_in_flight", "Calls being answered", ["service"])
IN_FLIGHT_LIMIT = Gauge("ecrs_in_flight_limit", "How many calls are taken at a time", ["service"])
CALLS_SHED = Counter("ecrs_shed_total", "Calls refused because too many were in flight", ["service"])
SERVING = Gauge("ecrs_serving", "1 while the service can do its job", ["service"])
DEPENDENCY_UP = Gauge(
    "ecrs_dependency_up",
    "0 while the service does its job without this dependency",
    ["service", "dependency"],
)
TASK_FAILURES = Counter(
    "ecrs_task_failures_total",
    "Background tasks of the service that ended unexpectedly and were started again",
    ["service", "task"],
)
ASYNCIO_TASKS = Gauge("ecrs_tasks", "Of asyncio, under way: a few, and a few a call in hand", ["service"])


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
    with tracing.client_span(what):
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
            tracing.annotate_span(outcome=timing.outcome)

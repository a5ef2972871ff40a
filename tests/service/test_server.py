"""The server that every service runs on: health, reflection, metrics, log, graceful stop."""

import asyncio
import http.client
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import grpc
import pytest
import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from prometheus_client import REGISTRY

from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.um_pb2_grpc import UMServiceServicer, UMServiceStub, add_UMServiceServicer_to_server
from ecrs.rpc.backend import Backend
from ecrs.rpc.breaker import FAILURES_TO_OPEN
from ecrs.rpc.client import call, open_channel
from ecrs.rpc.errors import DeadlineExceeded, Fault, NotFound, Unavailable
from ecrs.rpc.server import Service, running_service
from ecrs.rpc.settings import ServerSettings
from tests.eventually import eventually
from tests.service.conftest import Start

Answer = Callable[[UserModelRequest], Awaitable[UserModelResponse]]


class Scripted(UMServiceServicer):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def um_call(
        self, request: UserModelRequest, context: grpc.aio.ServicerContext
    ) -> UserModelResponse:
        return await self._answer(request)


def scripted(answer: Answer, check: Callable[[], Awaitable[None]] | None = None) -> Service:
    async def fine() -> None: ...

    return Service(
        "um", "um.UMService", lambda s: add_UMServiceServicer_to_server(Scripted(answer), s), check or fine
    )


async def echo(request: UserModelRequest) -> UserModelResponse:
    return UserModelResponse(user_info={"user_id": request.user_id})


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def metric(name: str, **labels: str) -> float | None:
    """The value of a metric of `um`."""
    return REGISTRY.get_sample_value(name, {"service": "um", **labels})


async def test_success_is_code_200(start: Start) -> None:
    channel, _ = await start(scripted(echo))
    reply = await UMServiceStub(channel).um_call(UserModelRequest(user_id="1"))
    assert reply.error.code == 200


async def test_an_unexpected_error_is_internal_and_shows_no_internals(start: Start) -> None:
    async def broken(request: UserModelRequest) -> UserModelResponse:
        raise RuntimeError("secret password")

    channel, _ = await start(scripted(broken))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await UMServiceStub(channel).um_call(UserModelRequest(user_id="1", log_id="find-me"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    assert "find-me" in caught.value.details()


async def test_a_log_id_is_made_when_empty_and_kept_when_given(start: Start) -> None:
    seen: list[str] = []

    async def remember(request: UserModelRequest) -> UserModelResponse:
        seen.append(request.log_id)
        return UserModelResponse()

    channel, _ = await start(scripted(remember))
    await UMServiceStub(channel).um_call(UserModelRequest(log_id="given"))
    await UMServiceStub(channel).um_call(UserModelRequest())
    assert seen[0] == "given"
    assert len(seen[1]) == 32


async def test_one_log_line_a_call_says_what_happened(start: Start) -> None:
    async def unknown(request: UserModelRequest) -> UserModelResponse:
        raise NotFound("no user '5'")

    channel, _ = await start(scripted(unknown))
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await UMServiceStub(channel).um_call(UserModelRequest(user_id="5", log_id="x"))
    (line,) = [line for line in lines if line["event"] == "rpc"]
    assert line["method"] == "/um.UMService/um_call"
    assert (line["log_id"], line["error_code"], line["error"]) == ("x", 500, "no user '5'")
    assert line["took_ms"] > 0


async def test_health_follows_the_check_and_gives_its_reason(start: Start) -> None:
    state = {"fault": Unavailable("redis is away")}

    async def check() -> None:
        if state["fault"]:
            raise state["fault"]

    channel, running = await start(scripted(echo, check))
    health = HealthStub(channel)

    async def is_(status: int) -> bool:
        return (await health.Check(HealthCheckRequest(service="um.UMService"))).status == status

    async def told() -> bool:
        return running.reason == "redis is away"

    await eventually(lambda: is_(HealthCheckResponse.NOT_SERVING))
    await eventually(told)
    status, body = await asyncio.to_thread(get, running.metrics_port, "/health")
    assert (status, json.loads(body)["reason"]) == (503, "redis is away")

    state["fault"] = None
    await eventually(lambda: is_(HealthCheckResponse.SERVING))
    assert (await asyncio.to_thread(get, running.metrics_port, "/health"))[0] == 200

    state["fault"] = Unavailable("away again")
    await eventually(lambda: is_(HealthCheckResponse.NOT_SERVING))


async def test_a_health_watch_that_ends_is_started_again_and_the_service_is_not_serving_meanwhile(
    start: Start,
) -> None:
    """A library under a check can raise CancelledError, which ends the task that awaits it."""
    cancelled = False

    async def check() -> None:
        if cancelled:
            raise asyncio.CancelledError

    channel, running = await start(scripted(echo, check))
    await running.serving()

    async def is_(expected: str) -> bool:
        return await status(channel, "um.UMService") == expected

    failures = metric("ecrs_task_failures_total", task="health")
    with structlog.testing.capture_logs() as lines:
        cancelled = True
        await eventually(lambda: is_("NOT_SERVING"))
    assert metric("ecrs_task_failures_total", task="health") > failures
    failed = next(line for line in lines if line["event"] == "background task failed")
    assert (failed["task"], failed["exc_info"]) == ("health", True)
    code, body = await asyncio.to_thread(get, running.metrics_port, "/health")
    assert (code, json.loads(body)["reason"]) == (503, "its health cannot be checked: see the log")

    cancelled = False
    await eventually(lambda: is_("SERVING"))


async def test_more_calls_than_are_taken_are_refused_at_once_and_health_is_not(start: Start) -> None:
    inside, leave = asyncio.Event(), asyncio.Event()

    async def wait(request: UserModelRequest) -> UserModelResponse:
        inside.set()
        await leave.wait()
        return UserModelResponse()

    channel, _ = await start(replace(scripted(wait), max_in_flight=1))
    stub = UMServiceStub(channel)
    first = asyncio.ensure_future(stub.um_call(UserModelRequest()))
    await inside.wait()
    assert metric("ecrs_in_flight") == metric("ecrs_in_flight_limit") == 1
    shed = metric("ecrs_shed_total")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.um_call(UserModelRequest())
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)
    assert metric("ecrs_shed_total") == shed + 1
    leave.set()
    assert (await first).error.code == 200
    assert metric("ecrs_in_flight") == 0
    assert (await stub.um_call(UserModelRequest())).error.code == 200


async def test_calls_beyond_what_can_be_answered_in_time_are_refused_at_once(start: Start) -> None:
    """66 calls a second can be answered, thirteen in a caller's 200 ms, and forty callers ask on and on."""
    turn = asyncio.Lock()

    async def slow(request: UserModelRequest) -> UserModelResponse:
        async with turn:
            await asyncio.sleep(0.015)
        return UserModelResponse()

    channel, _ = await start(replace(scripted(slow), max_in_flight=40))
    stub, ends = UMServiceStub(channel), asyncio.get_running_loop().time() + 4.0
    codes: list[tuple[float, grpc.StatusCode]] = []

    async def ask_on() -> None:
        while (begun := asyncio.get_running_loop().time()) < ends:
            try:
                await stub.um_call(UserModelRequest(), timeout=0.2)
                codes.append((begun, grpc.StatusCode.OK))
            except grpc.aio.AioRpcError as error:
                codes.append((begun, error.code()))
                await asyncio.sleep(0.02)

    await asyncio.gather(*(ask_on() for _ in range(40)))
    settled = Counter(code for begun, code in codes if begun > ends - 2.0)
    assert settled[grpc.StatusCode.OK] > 2 * settled[grpc.StatusCode.DEADLINE_EXCEEDED], settled
    assert settled[grpc.StatusCode.RESOURCE_EXHAUSTED], settled
    assert metric("ecrs_in_flight_limit") <= 16


async def status(channel: grpc.aio.Channel, name: str) -> str:
    reply = await HealthStub(channel).Check(HealthCheckRequest(service=name), timeout=5)
    return HealthCheckResponse.ServingStatus.Name(reply.status)


class Part:
    """A dependency that can be taken away."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault

    async def check(self) -> None:
        if self.fault:
            raise self.fault


async def test_what_a_service_can_do_without_is_named_and_it_stays(start: Start) -> None:
    vectors = Part()
    channel, running = await start(replace(scripted(echo), dependencies={"vectors": vectors.check}))
    await running.serving()
    assert [await status(channel, name) for name in ("", "full", "vectors")] == ["SERVING"] * 3
    vectors.fault = Unavailable("Milvus is away")

    async def told() -> bool:
        return running.missing == {"vectors": "Milvus is away"}

    await eventually(told)
    assert await status(channel, "") == await status(channel, "um.UMService") == "SERVING"
    assert await status(channel, "full") == await status(channel, "vectors") == "NOT_SERVING"
    code, body = await asyncio.to_thread(get, running.metrics_port, "/health")
    assert (code, json.loads(body)["missing"]) == (200, {"vectors": "Milvus is away"})
    _, metrics = await asyncio.to_thread(get, running.metrics_port, "/metrics")
    assert 'ecrs_dependency_up{dependency="vectors",service="um"} 0.0' in metrics
    assert 'ecrs_serving{service="um"} 1.0' in metrics

    vectors.fault = None

    async def whole() -> bool:
        return await status(channel, "full") == "SERVING"

    await eventually(whole)


@pytest.mark.parametrize("patience_s", [0.0, 60.0])
async def test_at_the_start_a_service_waits_as_long_as_its_patience(patience_s: float) -> None:
    vectors = Part(Unavailable("Milvus is away"))
    settings = ServerSettings(port=0, metrics_port=0, check_interval_s=0.02, patience_s=patience_s)
    async with running_service(
        replace(scripted(echo), dependencies={"vectors": vectors.check}), settings
    ) as running:

        async def checked() -> bool:
            return running.reason != "starting"

        await eventually(checked)
        assert running.reason == ("Milvus is away" if patience_s else None)
        vectors.fault = None
        await running.serving()


async def test_a_service_is_live_before_it_is_ready_and_not_when_its_loop_is_stuck(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, running = await start(scripted(echo, Part(Unavailable("redis is away")).check))
    assert await status(channel, "live") == "SERVING"
    assert await status(channel, "") == "NOT_SERVING"
    assert (await asyncio.to_thread(get, running.metrics_port, "/live"))[0] == 200
    monkeypatch.setattr("ecrs.rpc.server.LIVE_LIMIT_S", 0.1)
    assert get(running.metrics_port, "/live")[0] == 503  # asked from the loop itself, which waits meanwhile


async def test_a_peer_is_lacking_while_it_is_away_lacks_something_or_fails(start: Start) -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as nobody:
        with pytest.raises(Unavailable, match="um is unavailable"):
            await Backend("um", nobody).check()
    vectors = Part()
    broken = Unavailable("always")

    async def fail(request: UserModelRequest) -> UserModelResponse:
        raise broken

    channel, running = await start(replace(scripted(fail), dependencies={"vectors": vectors.check}))
    await running.serving()
    peer = Backend("um", channel)
    await peer.check()
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(Unavailable, match="always"):
            await peer.call(UMServiceStub(channel).um_call, UserModelRequest(), 1.0)
    with pytest.raises(Unavailable, match="calls to um fail"):
        await peer.check()

    vectors.fault = Unavailable("Milvus is away")

    async def noticed() -> bool:
        return bool(running.missing)

    await eventually(noticed)
    with pytest.raises(Unavailable, match="um is not serving or is missing a dependency"):
        await Backend("um", channel).check()


async def test_reflection_names_the_service(start: Start) -> None:
    channel, _ = await start(scripted(echo))
    asked = iter([ServerReflectionRequest(list_services="")])
    async for reply in ServerReflectionStub(channel).ServerReflectionInfo(asked):
        names = {service.name for service in reply.list_services_response.service}
    assert {"um.UMService", "grpc.health.v1.Health"} <= names


async def test_metrics_count_calls_by_both_codes(start: Start) -> None:
    async def unknown(request: UserModelRequest) -> UserModelResponse:
        raise NotFound("no")

    channel, running = await start(scripted(unknown))
    sample = 'ecrs_rpc_total{error_code="500",grpc_code="OK",method="/um.UMService/um_call",service="um"}'

    def count(text: str) -> float:
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample))

    before = count((await asyncio.to_thread(get, running.metrics_port, "/metrics"))[1])
    await UMServiceStub(channel).um_call(UserModelRequest(user_id="5"))
    after = count((await asyncio.to_thread(get, running.metrics_port, "/metrics"))[1])
    assert after - before == 1


async def test_calls_in_flight_are_finished_at_the_end() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(request: UserModelRequest) -> UserModelResponse:
        entered.set()
        await release.wait()
        return UserModelResponse(user_info={"user_id": "late"})

    settings = ServerSettings(port=0, metrics_port=0, grace_s=5.0)
    async with running_service(scripted(slow), settings) as running:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.port}")
        pending = UMServiceStub(channel).um_call(UserModelRequest(user_id="1"))
        await asyncio.wait_for(entered.wait(), 5)
        asyncio.get_running_loop().call_later(0.1, release.set)
    assert (await pending).user_info.user_id == "late"
    await channel.close()


async def test_a_check_that_keeps_its_cancellation_to_itself_does_not_hold_up_the_end() -> None:
    checking = asyncio.Event()

    async def deaf() -> None:
        checking.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    settings = ServerSettings(port=0, metrics_port=0, check_interval_s=0.01)
    async with asyncio.timeout(5):
        async with running_service(scripted(echo, deaf), settings):
            await checking.wait()


async def test_a_peer_that_is_away_or_slow_is_a_fault_with_a_name(start: Start) -> None:
    async def slow(request: UserModelRequest) -> UserModelResponse:
        await asyncio.sleep(5)
        return UserModelResponse()

    _, running = await start(scripted(slow))
    async with open_channel(f"127.0.0.1:{running.port}") as channel:
        with pytest.raises(DeadlineExceeded, match="um did not answer within 50 ms"):
            await call("um", UMServiceStub(channel).um_call, UserModelRequest(), 0.05)
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(Unavailable, match=r"um is unavailable \(UNAVAILABLE\)"):
            await call("um", UMServiceStub(channel).um_call, UserModelRequest(), 2.0)


async def test_a_peers_own_error_is_passed_on(start: Start) -> None:
    async def unknown(request: UserModelRequest) -> UserModelResponse:
        raise NotFound("no user '5'")

    _, running = await start(scripted(unknown))
    async with open_channel(f"127.0.0.1:{running.port}") as channel:
        with pytest.raises(NotFound, match="no user '5'"):
            await call("um", UMServiceStub(channel).um_call, UserModelRequest(), 2.0)


async def test_sigterm_ends_a_service_with_0() -> None:
    """The real program, as a container runs it, with a store that is away."""
    environment = {"ECRS_PORT": "0", "ECRS_METRICS_PORT": "0", "ECRS_REDIS_URL": "redis://127.0.0.1:1/0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecrs.serve", "um",
        env=os.environ | environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    try:
        async with asyncio.timeout(20):
            while not lines or "unavailable" not in str(lines[-1].get("reason")):
                lines.append(json.loads(await process.stdout.readline()))
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    assert lines[0]["service"] == "um"
    assert "the profile store is unavailable" in lines[-1]["reason"]

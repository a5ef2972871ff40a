"""The gRPC server of every service: health, reflection, metrics, log, load shedding, graceful stop."""

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
    """Return the value of a metric of the service `um`."""
    return REGISTRY.get_sample_value(name, {"service": "um", **labels})


async def test_a_successful_reply_has_code_200(start: Start) -> None:
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


async def test_a_missing_log_id_is_generated_and_a_given_one_is_kept(start: Start) -> None:
    log_ids: list[str] = []

    async def record(request: UserModelRequest) -> UserModelResponse:
        log_ids.append(request.log_id)
        return UserModelResponse()

    channel, _ = await start(scripted(record))
    await UMServiceStub(channel).um_call(UserModelRequest(log_id="given"))
    await UMServiceStub(channel).um_call(UserModelRequest())
    assert log_ids[0] == "given"
    assert len(log_ids[1]) == 32


async def test_each_call_is_logged_in_one_line(start: Start) -> None:
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
    state = {"fault": Unavailable("redis is unavailable")}

    async def check() -> None:
        if state["fault"]:
            raise state["fault"]

    channel, running = await start(scripted(echo, check))
    health = HealthStub(channel)

    async def has_status(status: int) -> bool:
        return (await health.Check(HealthCheckRequest(service="um.UMService"))).status == status

    async def has_reason() -> bool:
        return running.reason == "redis is unavailable"

    await eventually(lambda: has_status(HealthCheckResponse.NOT_SERVING))
    await eventually(has_reason)
    status, body = await asyncio.to_thread(get, running.metrics_port, "/health")
    assert (status, json.loads(body)["reason"]) == (503, "redis is unavailable")

    state["fault"] = None
    await eventually(lambda: has_status(HealthCheckResponse.SERVING))
    assert (await asyncio.to_thread(get, running.metrics_port, "/health"))[0] == 200

    state["fault"] = Unavailable("unavailable again")
    await eventually(lambda: has_status(HealthCheckResponse.NOT_SERVING))


async def test_a_crashed_health_watch_is_restarted_and_the_service_is_not_serving_meanwhile(
    start: Start,
) -> None:
    """A library used by a check can raise CancelledError, which ends the task that awaits the check."""
    cancelled = False

    async def check() -> None:
        if cancelled:
            raise asyncio.CancelledError

    channel, running = await start(scripted(echo, check))
    await running.serving()

    async def has_status(expected: str) -> bool:
        return await status(channel, "um.UMService") == expected

    failures = metric("ecrs_task_failures_total", task="health")
    with structlog.testing.capture_logs() as lines:
        cancelled = True
        await eventually(lambda: has_status("NOT_SERVING"))
    assert metric("ecrs_task_failures_total", task="health") > failures
    failed = next(line for line in lines if line["event"] == "background task failed")
    assert (failed["task"], failed["exc_info"]) == ("health", True)
    code, body = await asyncio.to_thread(get, running.metrics_port, "/health")
    assert (code, json.loads(body)["reason"]) == (503, "its health cannot be checked: see the log")

    cancelled = False
    await eventually(lambda: has_status("SERVING"))


async def test_calls_above_the_limit_are_refused_and_health_checks_are_not(start: Start) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def wait(request: UserModelRequest) -> UserModelResponse:
        entered.set()
        await release.wait()
        return UserModelResponse()

    channel, _ = await start(replace(scripted(wait), max_in_flight=1))
    stub = UMServiceStub(channel)
    first = asyncio.ensure_future(stub.um_call(UserModelRequest()))
    await entered.wait()
    assert metric("ecrs_in_flight") == metric("ecrs_in_flight_limit") == 1
    shed = metric("ecrs_shed_total", reason="load")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.um_call(UserModelRequest())
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)
    assert metric("ecrs_shed_total", reason="load") == shed + 1
    release.set()
    assert (await first).error.code == 200
    assert metric("ecrs_in_flight") == 0
    assert (await stub.um_call(UserModelRequest())).error.code == 200


async def test_calls_that_cannot_be_answered_in_time_are_refused_at_once(start: Start) -> None:
    """The service can answer 66 calls per second, so 13 within a caller's 200 ms; 40 callers keep calling."""
    one_at_a_time = asyncio.Lock()

    async def slow(request: UserModelRequest) -> UserModelResponse:
        async with one_at_a_time:
            await asyncio.sleep(0.015)
        return UserModelResponse()

    channel, _ = await start(replace(scripted(slow), max_in_flight=40))
    stub, ends = UMServiceStub(channel), asyncio.get_running_loop().time() + 4.0
    codes: list[tuple[float, grpc.StatusCode]] = []

    async def keep_calling() -> None:
        while (begun := asyncio.get_running_loop().time()) < ends:
            try:
                await stub.um_call(UserModelRequest(), timeout=0.2)
                codes.append((begun, grpc.StatusCode.OK))
            except grpc.aio.AioRpcError as error:
                codes.append((begun, error.code()))
                await asyncio.sleep(0.02)

    await asyncio.gather(*(keep_calling() for _ in range(40)))
    settled = Counter(code for begun, code in codes if begun > ends - 2.0)
    assert settled[grpc.StatusCode.OK] > 2 * settled[grpc.StatusCode.DEADLINE_EXCEEDED], settled
    assert settled[grpc.StatusCode.RESOURCE_EXHAUSTED], settled
    assert metric("ecrs_in_flight_limit") <= 16


async def status(channel: grpc.aio.Channel, name: str) -> str:
    reply = await HealthStub(channel).Check(HealthCheckRequest(service=name), timeout=5)
    return HealthCheckResponse.ServingStatus.Name(reply.status)


class Dependency:
    """A dependency whose check fails with `fault` while that is set."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault

    async def check(self) -> None:
        if self.fault:
            raise self.fault


async def test_a_missing_optional_dependency_is_reported_and_the_service_keeps_serving(start: Start) -> None:
    vectors = Dependency()
    channel, running = await start(replace(scripted(echo), dependencies={"vectors": vectors.check}))
    await running.serving()
    assert [await status(channel, name) for name in ("", "full", "vectors")] == ["SERVING"] * 3
    vectors.fault = Unavailable("Milvus is unavailable")

    async def is_reported() -> bool:
        return running.missing == {"vectors": "Milvus is unavailable"}

    await eventually(is_reported)
    assert await status(channel, "") == await status(channel, "um.UMService") == "SERVING"
    assert await status(channel, "full") == await status(channel, "vectors") == "NOT_SERVING"
    code, body = await asyncio.to_thread(get, running.metrics_port, "/health")
    assert (code, json.loads(body)["missing"]) == (200, {"vectors": "Milvus is unavailable"})
    _, metrics = await asyncio.to_thread(get, running.metrics_port, "/metrics")
    assert 'ecrs_dependency_up{dependency="vectors",service="um"} 0.0' in metrics
    assert 'ecrs_serving{service="um"} 1.0' in metrics

    vectors.fault = None

    async def is_complete() -> bool:
        return await status(channel, "full") == "SERVING"

    await eventually(is_complete)


@pytest.mark.parametrize("startup_wait_s", [0.0, 60.0])
async def test_a_starting_service_waits_for_optional_dependencies(startup_wait_s: float) -> None:
    vectors = Dependency(Unavailable("Milvus is unavailable"))
    settings = ServerSettings(port=0, metrics_port=0, check_interval_s=0.02, startup_wait_s=startup_wait_s)
    async with running_service(
        replace(scripted(echo), dependencies={"vectors": vectors.check}), settings
    ) as running:

        async def was_checked() -> bool:
            return running.reason != "starting"

        await eventually(was_checked)
        assert running.reason == ("Milvus is unavailable" if startup_wait_s else None)
        vectors.fault = None
        await running.serving()


async def test_a_service_is_live_before_it_is_ready_and_not_while_its_event_loop_is_blocked(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, running = await start(scripted(echo, Dependency(Unavailable("redis is unavailable")).check))
    assert await status(channel, "live") == "SERVING"
    assert await status(channel, "") == "NOT_SERVING"
    assert (await asyncio.to_thread(get, running.metrics_port, "/live"))[0] == 200
    monkeypatch.setattr("ecrs.rpc.http.LIVE_LIMIT_S", 0.1)
    assert get(running.metrics_port, "/live")[0] == 503  # called from the event loop, which it blocks


async def test_a_backends_check_fails_while_it_is_down_incomplete_or_failing(start: Start) -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as unreachable:
        with pytest.raises(Unavailable, match="um is unavailable"):
            await Backend("um", unreachable).check()
    vectors = Dependency()

    async def fail(request: UserModelRequest) -> UserModelResponse:
        raise Unavailable("always")

    channel, running = await start(replace(scripted(fail), dependencies={"vectors": vectors.check}))
    await running.serving()
    backend = Backend("um", channel)
    await backend.check()
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(Unavailable, match="always"):
            await backend.call(UMServiceStub(channel).um_call, UserModelRequest(), 1.0)
    with pytest.raises(Unavailable, match="calls to um fail"):
        await backend.check()

    vectors.fault = Unavailable("Milvus is unavailable")

    async def noticed() -> bool:
        return bool(running.missing)

    await eventually(noticed)
    with pytest.raises(Unavailable, match="um is not serving or is missing a dependency"):
        await Backend("um", channel).check()


async def reflected_names(channel: grpc.aio.Channel) -> set[str]:
    requests = iter([ServerReflectionRequest(list_services="")])
    names: set[str] = set()
    async for reply in ServerReflectionStub(channel).ServerReflectionInfo(requests):
        names |= {service.name for service in reply.list_services_response.service}
    return names


async def test_reflection_names_the_service_if_it_is_on(start: Start) -> None:
    channel, _ = await start(scripted(echo), reflection=True)
    assert {"um.UMService", "grpc.health.v1.Health"} <= await reflected_names(channel)


async def test_reflection_is_off_by_default(start: Start) -> None:
    channel, _ = await start(scripted(echo))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await reflected_names(channel)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metrics_count_calls_by_grpc_code_and_error_code(start: Start) -> None:
    async def unknown(request: UserModelRequest) -> UserModelResponse:
        raise NotFound("no")

    channel, running = await start(scripted(unknown))
    sample = 'ecrs_rpc_total{error_code="500",grpc_code="OK",method="/um.UMService/um_call",service="um"}'

    async def count() -> float:
        _, text = await asyncio.to_thread(get, running.metrics_port, "/metrics")
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample))

    before = await count()
    await UMServiceStub(channel).um_call(UserModelRequest(user_id="5"))

    async def is_counted() -> bool:  # once the rendered metrics are a second old
        return await count() - before == 1

    await eventually(is_counted)


async def test_shutdown_waits_for_calls_in_flight() -> None:
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


async def test_a_check_that_swallows_its_cancellation_does_not_block_shutdown() -> None:
    checking = asyncio.Event()

    async def swallow_cancellation() -> None:
        checking.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    settings = ServerSettings(port=0, metrics_port=0, check_interval_s=0.01)
    async with asyncio.timeout(5):
        async with running_service(scripted(echo, swallow_cancellation), settings):
            await checking.wait()


async def test_an_unavailable_or_slow_backend_raises_a_fault_that_names_it(start: Start) -> None:
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


async def test_a_backends_own_error_is_raised_as_its_fault(start: Start) -> None:
    async def unknown(request: UserModelRequest) -> UserModelResponse:
        raise NotFound("no user '5'")

    _, running = await start(scripted(unknown))
    async with open_channel(f"127.0.0.1:{running.port}") as channel:
        with pytest.raises(NotFound, match="no user '5'"):
            await call("um", UMServiceStub(channel).um_call, UserModelRequest(), 2.0)


async def test_a_service_exits_with_0_on_sigterm() -> None:
    """The program as a container runs it, with a store that is unavailable."""
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

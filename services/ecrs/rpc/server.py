"""Runs one service: gRPC server, health, reflection, metrics, graceful stop.

A service starts NOT_SERVING, becomes SERVING when `check` passes, and NOT_SERVING whenever it fails. At the
start it also waits, for at most `startup_wait_s`, for the dependencies that it can work without. Once it has
served, it stays SERVING when they fail and reports them as missing. On SIGTERM or SIGINT it becomes
NOT_SERVING, gives the calls in flight `grace_s` to finish, and the program ends with exit code 0.

The gRPC health service answers for these names: the service's full name and the empty name, SERVING while the
service can do its job; LIVE, SERVING while the process runs; FULL, SERVING while no dependency is missing;
and the name of each dependency.
"""

import asyncio
import faulthandler
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from ecrs.ports import METRICS_OFFSET
from ecrs.rpc.errors import Fault
from ecrs.rpc.health import HealthRequestCheck, LimitedHealthServicer
from ecrs.rpc.http import http_server, status
from ecrs.rpc.interceptors import CallObserver, Interceptor
from ecrs.rpc.limits import MethodLimits
from ecrs.rpc.load import LoadShedder
from ecrs.rpc.metrics import ASYNCIO_TASKS, DEPENDENCY_UP, SERVING
from ecrs.rpc.settings import ServerSettings
from ecrs.rpc.supervision import supervised

log = structlog.get_logger()

STOP_STEP_S = 1.0
"""Longest time for one step of stopping, not counting the calls in flight."""

MAX_IN_FLIGHT = 1000
"""Default of `Service.max_in_flight`, for the services behind the gateway, which accepts fewer calls."""

MAX_CONNECTION_AGE_MS, CONNECTION_GRACE_MS = 60_000, 10_000
"""Connections are closed after a minute, so that clients resolve the name again and find new replicas. Calls
that are still open then, such as health watches, are ended after the grace."""

MAX_STREAMS = 1_000
"""Most calls at a time on one connection; more wait at the client."""

LIVE, FULL = "live", "full"
"""Names that the gRPC health service answers for, besides those of the service and its dependencies."""

Check = Callable[[], Awaitable[None]]
"""A health check: raises a Fault, whose text is the reason, if it fails."""


async def always_healthy() -> None:
    """Health check for a service that has no hard dependencies."""


@dataclass
class Service:
    """Description of a service, for `run`.

    `full_name` is the name of the protobuf service, and `register` adds its servicer to a server. `check`
    fails while the service cannot do its job. Each of `dependencies`, by name, fails while the service works
    without that dependency. At most `max_in_flight` calls of ordinary cost are accepted at a time, fewer
    while answers are late. `limits`, by method, tell how long a request may be and what a call costs.
    `interceptors` wrap the servicer's methods; a Fault that they raise becomes the reply.
    """

    name: str
    full_name: str
    register: Callable[[grpc.aio.Server], None]
    check: Check = always_healthy
    port: int = 0
    dependencies: Mapping[str, Check] = field(default_factory=dict)
    max_in_flight: int = MAX_IN_FLIGHT
    limits: Mapping[str, MethodLimits] = field(default_factory=dict)
    interceptors: Sequence[Interceptor] = ()


@dataclass
class RunningService:
    """A running service: its ports and its health."""

    name: str
    port: int = 0
    metrics_port: int = 0
    reason: str | None = "starting"  # why it is NOT_SERVING; None while SERVING
    missing: dict[str, str] = field(default_factory=dict)  # dependency -> why it fails
    has_served: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serving(self) -> None:
        """Wait until the service is SERVING."""
        while self.reason is not None:
            self.changed.clear()
            await self.changed.wait()


async def run(service: Service, settings: ServerSettings) -> None:
    """Run `service` until SIGTERM or SIGINT, then stop it gracefully."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_service(service, settings):
        await stop.wait()
        log.info("stopping", grace_s=settings.grace_s)
        # If a library hangs, dump the stacks and exit, before the process is killed without a trace.
        faulthandler.dump_traceback_later(settings.grace_s + 2 * STOP_STEP_S, exit=True)
    log.info("stopped")


@asynccontextmanager
async def running_service(service: Service, settings: ServerSettings) -> AsyncIterator[RunningService]:
    """Run `service` while the context is open; yields it as soon as it listens, still NOT_SERVING."""
    server = grpc.aio.server(
        interceptors=[
            LoadShedder(service.name, service.max_in_flight, settings.call_timeout_s, service.limits),
            CallObserver(service.name, service.limits),
            *service.interceptors,
            HealthRequestCheck(),
        ],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
            ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
        ],
    )
    service.register(server)
    health = LimitedHealthServicer(service.name)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if settings.reflection:
        names = (service.full_name, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    running = RunningService(service.name)
    port = service.port if settings.port is None else settings.port
    running.port = server.add_insecure_port(f"{settings.host}:{port}")
    await health.set(LIVE, HealthCheckResponse.SERVING)
    await _set_health(running, health, service, "starting", dict.fromkeys(service.dependencies, "starting"))
    loop = asyncio.get_running_loop()
    ASYNCIO_TASKS.labels(service.name).set_function(lambda: len(asyncio.all_tasks(loop)))
    metrics_port = settings.metrics_port
    if metrics_port is None:
        metrics_port = running.port + METRICS_OFFSET if port else 0
    with http_server(settings.host, metrics_port, running, loop) as running.metrics_port:
        await server.start()
        log.info("listening", address=f"{settings.host}:{running.port}", metrics_port=running.metrics_port)
        watch = asyncio.create_task(_watch(running, health, service, settings))
        try:
            yield running
        finally:
            watch.cancel()
            await asyncio.wait([watch], timeout=STOP_STEP_S)
            await _set_health(running, health, service, "stopping", running.missing)
            await asyncio.wait(
                [asyncio.ensure_future(server.stop(settings.grace_s))], timeout=settings.grace_s + STOP_STEP_S
            )


async def _watch(
    running: RunningService, health: HealthServicer, service: Service, settings: ServerSettings
) -> None:
    """Keep the service's health up to date until this task is cancelled."""
    startup_wait_ends_at = time.monotonic() + settings.startup_wait_s

    async def watch() -> None:
        while True:
            await _check(running, health, service, startup_wait_ends_at)
            await asyncio.sleep(settings.check_interval_s)

    async def fail() -> None:
        await _set_health(
            running, health, service, "its health cannot be checked: see the log", running.missing
        )

    await supervised(service.name, "health", watch, fail)


async def _check(
    running: RunningService, health: HealthServicer, service: Service, startup_wait_ends_at: float
) -> None:
    """Run all checks once and publish the result if it differs from the last one."""
    reason, *reasons = await asyncio.gather(
        _failure_reason(service.check), *map(_failure_reason, service.dependencies.values())
    )
    missing = {name: text for name, text in zip(service.dependencies, reasons, strict=True) if text}
    if not running.has_served and time.monotonic() < startup_wait_ends_at:
        reason = reason or "; ".join(missing.values()) or None
    if (reason, missing) != (running.reason, running.missing):
        await _set_health(running, health, service, reason, missing)


async def _failure_reason(check: Check) -> str | None:
    """Run `check` and return the reason if it fails, None if it passes."""
    try:
        await check()
    except Fault as fault:
        return fault.text
    except Exception:
        log.exception("check failed")
        return "the check itself failed: see the log"
    return None


async def _set_health(
    running: RunningService,
    health: HealthServicer,
    service: Service,
    reason: str | None,
    missing: dict[str, str],
) -> None:
    running.reason, running.missing = reason, missing
    running.has_served |= not reason
    healthy = {"": not reason, service.full_name: not reason, FULL: not reason and not missing}
    for name in service.dependencies:
        healthy[name] = name not in missing
        DEPENDENCY_UP.labels(service.name, name).set(name not in missing)
    for name, serving in healthy.items():
        await health.set(name, HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)
    SERVING.labels(service.name).set(not reason)
    running.changed.set()
    log.info("health", status=status(running), reason=reason, missing=missing)

"""Runs one service: health, reflection, metrics, graceful stop.

A service starts NOT_SERVING, becomes SERVING when `check` passes, and NOT_SERVING whenever it fails. At the
start it also waits for the dependencies that it can work without; from then on it is SERVING without them and
names those it misses. On SIGTERM or SIGINT it becomes NOT_SERVING, gives the calls in flight `grace_s`, and
the program ends with exit code 0.

gRPC health answers for these names: the service's own and the empty one, SERVING while it can do its job;
LIVE, while the process runs; FULL, while it misses no dependency; and each dependency's.
"""

import asyncio
import faulthandler
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from prometheus_client import make_wsgi_app

from ecrs.rpc.errors import Fault
from ecrs.rpc.interceptors import CallObserver
from ecrs.rpc.load import LoadShedder
from ecrs.rpc.metrics import ASYNCIO_TASKS, DEPENDENCY_UP, SERVING
from ecrs.rpc.settings import ServerSettings
from ecrs.rpc.supervision import supervised

log = structlog.get_logger()

STOP_STEP_S = 1.0
"""The most that a step of stopping may take, calls in flight apart."""

MAX_IN_FLIGHT = 1000
"""Of a service that has the gateway before it, which takes fewer."""

MAX_CONNECTION_AGE_MS = 60_000
"""A connection ends after a minute, so that its client looks for new replicas."""

METRICS_OFFSET = 1
"""The HTTP port of a service, for metrics and health, is its gRPC port plus this."""

LIVE, FULL = "live", "full"

LIVE_LIMIT_S = 2.0
"""An event loop that does not turn for so long is stuck."""

Check = Callable[[], Awaitable[None]]


async def always_healthy() -> None:
    """The check of a service that can do its job whatever is away."""


@dataclass
class Service:
    """One service as `run` wants it.

    `full_name` is the protobuf service's; `register` adds the servicer to a server; `check`
    raises a Fault, whose text is the reason, while the service cannot do its job; so do
    `dependencies`, by name, while it does its job without one of them; at most `max_in_flight`
    calls at a time are taken, fewer while they are late.
    """

    name: str
    full_name: str
    register: Callable[[grpc.aio.Server], None]
    check: Check = always_healthy
    port: int = 0
    dependencies: Mapping[str, Check] = field(default_factory=dict)
    max_in_flight: int = MAX_IN_FLIGHT


@dataclass
class RunningService:
    """A started service: the ports it got, and what it says of itself."""

    name: str
    port: int = 0
    metrics_port: int = 0
    reason: str | None = "starting"  # why not SERVING; None while SERVING
    missing: dict[str, str] = field(default_factory=dict)  # dependencies that are away, and why
    has_served: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serving(self) -> None:
        """Return once the service is SERVING."""
        while self.reason is not None:
            self.changed.clear()
            await self.changed.wait()


async def run(service: Service, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_service(service, settings):
        await stop.wait()
        log.info("stopping", grace_s=settings.grace_s)
        # Should a library hang, say where, and end before somebody kills without a word.
        faulthandler.dump_traceback_later(settings.grace_s + 2 * STOP_STEP_S, exit=True)
    log.info("stopped")


@asynccontextmanager
async def running_service(service: Service, settings: ServerSettings) -> AsyncIterator[RunningService]:
    """The service, listening, for the time of the context."""
    server = grpc.aio.server(
        interceptors=[
            LoadShedder(service.name, service.max_in_flight, settings.call_timeout_s),
            CallObserver(service.name),
        ],
        options=[("grpc.so_reuseport", 0), ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS)],
    )
    service.register(server)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (service.full_name, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
    )
    running = RunningService(service.name)
    wanted = service.port if settings.port is None else settings.port
    running.port = server.add_insecure_port(f"{settings.host}:{wanted}")
    await health.set(LIVE, HealthCheckResponse.SERVING)
    await _tell(running, health, service, "starting", dict.fromkeys(service.dependencies, "starting"))
    loop = asyncio.get_running_loop()
    ASYNCIO_TASKS.labels(service.name).set_function(lambda: len(asyncio.all_tasks(loop)))
    metrics_port = settings.metrics_port
    if metrics_port is None:
        metrics_port = running.port + METRICS_OFFSET if wanted else 0
    with _http(settings.host, metrics_port, running, loop) as running.metrics_port:
        await server.start()
        log.info("listening", address=f"{settings.host}:{running.port}", metrics_port=running.metrics_port)
        watch = asyncio.create_task(_watch(running, health, service, settings))
        try:
            yield running
        finally:
            watch.cancel()
            await asyncio.wait([watch], timeout=STOP_STEP_S)
            await _tell(running, health, service, "stopping", running.missing)
            await asyncio.wait(
                [asyncio.ensure_future(server.stop(settings.grace_s))], timeout=settings.grace_s + STOP_STEP_S
            )


async def _watch(
    running: RunningService, health: HealthServicer, service: Service, settings: ServerSettings
) -> None:
    """Keep the service's health up to date until this task is cancelled."""
    patience_ends = time.monotonic() + settings.patience_s

    async def watch() -> None:
        while True:
            await _check(running, health, service, patience_ends)
            await asyncio.sleep(settings.check_interval_s)

    async def fail() -> None:
        await _tell(running, health, service, "its health cannot be checked: see the log", running.missing)

    await supervised(service.name, "health", watch, fail)


async def _check(
    running: RunningService, health: HealthServicer, service: Service, patience_ends: float
) -> None:
    """Run all checks once and tell the result if it differs from the last one."""
    reason, *reasons = await asyncio.gather(
        _why_not(service.check), *map(_why_not, service.dependencies.values())
    )
    missing = {name: why for name, why in zip(service.dependencies, reasons, strict=True) if why}
    if not running.has_served and time.monotonic() < patience_ends:
        reason = reason or "; ".join(missing.values()) or None
    if (reason, missing) != (running.reason, running.missing):
        await _tell(running, health, service, reason, missing)


async def _why_not(check: Check) -> str | None:
    """The reason that a check fails for; None if it passes."""
    try:
        await check()
    except Fault as fault:
        return fault.text
    except Exception:
        log.exception("check failed")
        return "the check itself failed: see the log"
    return None


async def _tell(
    running: RunningService,
    health: HealthServicer,
    service: Service,
    reason: str | None,
    missing: dict[str, str],
) -> None:
    running.reason, running.missing = reason, missing
    running.has_served |= not reason
    answers = {"": not reason, service.full_name: not reason, FULL: not reason and not missing}
    for name in service.dependencies:
        answers[name] = name not in missing
        DEPENDENCY_UP.labels(service.name, name).set(name not in missing)
    for name, yes in answers.items():
        await health.set(name, HealthCheckResponse.SERVING if yes else HealthCheckResponse.NOT_SERVING)
    SERVING.labels(service.name).set(not reason)
    running.changed.set()
    log.info("health", status=_status(running), reason=reason, missing=missing)


def _status(running: RunningService) -> str:
    return "NOT_SERVING" if running.reason else "SERVING"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Scrapes and probes are no news."""


@contextmanager
def _http(host: str, port: int, running: RunningService, loop: asyncio.AbstractEventLoop) -> Iterator[int]:
    """`/metrics`, `/health` and `/live` on a thread of their own; yields the port."""
    metrics = make_wsgi_app()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return metrics(environ, start_response)
            case "/health":
                reply = {"status": _status(running), "reason": running.reason, "missing": running.missing}
                fine = running.reason is None
            case "/live":
                fine = _turns(loop)
                reply = {"status": "LIVE" if fine else "STUCK"}
            case _:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /health or /live\n"]
        start_response(
            "200 OK" if fine else "503 Service Unavailable", [("Content-Type", "application/json")]
        )
        return [json.dumps({"service": running.name} | reply).encode()]

    server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="http", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _turns(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop, another thread's, comes to what it is given within LIVE_LIMIT_S."""
    turned = threading.Event()
    loop.call_soon_threadsafe(turned.set)
    return turned.wait(LIVE_LIMIT_S)

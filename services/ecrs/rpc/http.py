"""The HTTP port of a service: `/metrics`, `/health` and `/live`, on threads of its own.

Its limits keep it from taking the interpreter from the calls that the service answers: few threads, few
connections, a short wait for a request, and at most one rendering of the metrics per METRICS_AGE_S.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from prometheus_client import REGISTRY
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from waitress import wasyncore
from waitress.server import create_server

THREADS = 2
"""Requests that are answered at the same time."""

MAX_CONNECTIONS = 64
"""Most open connections; more wait in the kernel's queue."""

IDLE_LIMIT_S = 2
"""A connection that sends nothing for this long is closed."""

MAX_REQUEST_BYTES = 8192
"""Longest header of a request, and longest body."""

METRICS_AGE_S = 1.0
"""Rendered metrics are reused for this long. Rendering takes some milliseconds of the interpreter."""

LIVE_LIMIT_S = 2.0
"""An event loop that does not run a callback within this time is reported as stuck."""


class Health(Protocol):
    """The health of a service, as `/health` reports it."""

    name: str
    reason: str | None
    """Why the service is NOT_SERVING; None while it is SERVING."""
    missing: dict[str, str]
    """The dependencies that the service works without, and why each fails."""


def status(health: Health) -> str:
    """Return SERVING or NOT_SERVING."""
    return "NOT_SERVING" if health.reason else "SERVING"


@contextmanager
def http_server(host: str, port: int, health: Health, loop: asyncio.AbstractEventLoop) -> Iterator[int]:
    """Serve the HTTP port while the context is open; yields the port. `loop` is the one that `/live` checks.

    Raises OSError if the port cannot be bound.
    """
    sockets: dict[int, Any] = {}
    server: Any = create_server(
        _application(health, loop),
        map=sockets,
        host=host,
        port=port,
        threads=THREADS,
        connection_limit=MAX_CONNECTIONS,
        channel_timeout=IDLE_LIMIT_S,
        cleanup_interval=1,
        max_request_header_size=MAX_REQUEST_BYTES,
        max_request_body_size=MAX_REQUEST_BYTES,
        ident=None,
    )
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        server.trigger.pull_trigger(lambda: wasyncore.close_all(sockets))  # on the server's thread
        thread.join()
        server.task_dispatcher.shutdown()


def _application(health: Health, loop: asyncio.AbstractEventLoop) -> Any:
    """Return the WSGI application."""
    metrics = _CachedMetrics()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
                return [metrics.text()]
            case "/health":
                reply = {"status": status(health), "reason": health.reason, "missing": health.missing}
                healthy = health.reason is None
            case "/live":
                healthy = _is_responsive(loop)
                reply = {"status": "LIVE" if healthy else "STUCK"}
            case _:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /health or /live\n"]
        start_response(
            "200 OK" if healthy else "503 Service Unavailable", [("Content-Type", "application/json")]
        )
        return [json.dumps({"service": health.name} | reply).encode()]

    return application


class _CachedMetrics:
    """The metrics in Prometheus' text format, rendered again when they are older than METRICS_AGE_S."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rendered = b""
        self._rendered_at = -METRICS_AGE_S

    def text(self) -> bytes:
        with self._lock:
            if time.monotonic() - self._rendered_at >= METRICS_AGE_S:
                self._rendered = generate_latest(REGISTRY)
                self._rendered_at = time.monotonic()
            return self._rendered


def _is_responsive(loop: asyncio.AbstractEventLoop) -> bool:
    """True if `loop`, which runs on another thread, runs a callback within LIVE_LIMIT_S."""
    called = threading.Event()
    loop.call_soon_threadsafe(called.set)
    return called.wait(LIVE_LIMIT_S)

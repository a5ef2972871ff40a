"""Logging: one JSON object per line, with the `log_id` of the current request.

Logging never blocks and never raises. Lines that cannot be written are dropped and counted in
ecrs_log_lines_dropped_total.
"""

import atexit
import json
import logging

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ecrs.rpc.line_writer import QUEUE_FULL, WRITE_ERROR, Descriptor, LineWriter, Output
from ecrs.rpc.log_file import STANDARD_OUTPUT
from ecrs.rpc.metrics import LOG_LINES_DROPPED


def configure(service: str, output: Output | None = None) -> None:
    """Write the logs of structlog and of the standard library as JSON lines with the field `service`.

    `output` is standard output by default. Lines that are queued when the program ends are written first.
    """
    dropped = {reason: LOG_LINES_DROPPED.labels(service, reason) for reason in (QUEUE_FULL, WRITE_ERROR)}
    writer = LineWriter(
        output or Descriptor(STANDARD_OUTPUT),
        on_drop=lambda reason, lines: dropped[reason].inc(lines),
        on_resume=lambda lines: structlog.get_logger().warning("log lines dropped", lines=lines),
    )
    atexit.register(writer.close)

    def add_service(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    logger = _Logger(writer)
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_json_bytes)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # or a record that cannot be formatted is printed, which can block
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs every error that it also raises


def log_warnings_only() -> None:
    """Log warnings and errors only, for interactive commands, which print their own progress."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


class _Logger:
    """The logger below structlog: passes rendered lines on to a writer."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def msg(self, line: bytes) -> None:
        self._writer.write(line + b"\n")

    debug = info = warning = error = critical = exception = msg


class _Handler(logging.Handler):
    """Passes the records of the standard library's logging, rendered as JSON, on to a writer."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.write(self.format(record).encode() + b"\n")
        except Exception:
            self.handleError(record)


def _json_bytes(event: object, **_: object) -> bytes:
    try:
        return orjson.dumps(event, default=str)
    except TypeError:  # such as an integer of more than 64 bits
        return json.dumps(event, default=str, skipkeys=True).encode()


def _json(event: object, **_: object) -> str:
    return _json_bytes(event).decode()

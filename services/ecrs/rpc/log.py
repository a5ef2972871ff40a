"""Logging: one JSON object per line on standard output, with the `log_id` of the current request."""

import logging
import sys

import orjson
import structlog
from structlog.typing import Processor


def configure(service: str) -> None:
    """Write the logs of structlog and of the standard library to stdout, as JSON lines with `service`."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_json_bytes)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
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
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs every error that it also raises
    structlog.contextvars.bind_contextvars(service=service)


def log_warnings_only() -> None:
    """Log warnings and errors only, for interactive commands, which print their own progress."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def _json_bytes(event: object, **_: object) -> bytes:
    return orjson.dumps(event, default=str)


def _json(event: object, **_: object) -> str:
    return _json_bytes(event).decode()

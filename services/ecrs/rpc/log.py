"""One JSON object a line on standard output; `log_id` rides along in the context."""

import logging
import sys

import orjson
import structlog
from structlog.typing import Processor


def configure(service: str) -> None:
    """Send structlog and the standard library's log to stdout as JSON lines of `service`."""
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
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it raises what it logs, with a traceback
    structlog.contextvars.bind_contextvars(service=service)


def only_warnings() -> None:
    """For commands that a person watches: they say themselves what goes on."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def _json_bytes(event: object, **_: object) -> bytes:
    return orjson.dumps(event, default=str)


def _json(event: object, **_: object) -> str:
    return _json_bytes(event).decode()

"""Reports stored records that cannot be read: counts each one, and logs some of them."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

from ecrs.metrics import MALFORMED_RECORDS

log = structlog.get_logger()

RECORDS = ("profile", "history", "aggregates", "item")
"""Kinds of records."""

LOG_INTERVAL_S = 10.0
"""Time between two log lines about the same kind of record. A malformed record is read again with every
request for it, and a line each time would fill the log."""


class MalformedRecords:
    """Counts malformed records, and logs at most one of each kind per LOG_INTERVAL_S; `now` is the clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._logged_at: dict[str, float] = {}
        self._not_logged: Counter[str] = Counter()
        for record in RECORDS:
            MALFORMED_RECORDS.labels(record)  # so that the metric exists, as 0, before the first one

    def report(self, record: str, reason: str) -> None:
        """Count a malformed `record`, one of RECORDS; `reason` names the record and the fault."""
        MALFORMED_RECORDS.labels(record).inc()
        now = self._now()
        if now - self._logged_at.get(record, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
            self._not_logged[record] += 1
            return
        log.warning(
            "malformed record", record=record, reason=reason, not_logged=self._not_logged.pop(record, 0)
        )
        self._logged_at[record] = now

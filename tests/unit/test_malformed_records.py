"""Reports of malformed stored records: each is counted, and a flood of them does not fill the log."""

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ecrs.storage.malformed_records import LOG_INTERVAL_S, MalformedRecords


def count(record: str) -> float:
    return REGISTRY.get_sample_value("ecrs_malformed_records_total", {"record": record}) or 0.0


def test_every_malformed_record_is_counted_by_kind() -> None:
    before = count("history"), count("item")
    malformed = MalformedRecords()
    for _ in range(3):
        malformed.report("history", "a reason")
    malformed.report("item", "a reason")
    assert (count("history"), count("item")) == (before[0] + 3, before[1] + 1)


def test_one_record_of_each_kind_is_logged_per_interval_with_the_number_left_out() -> None:
    clock = [0.0]
    malformed = MalformedRecords(now=lambda: clock[0])
    with capture_logs() as logs:
        for _ in range(1000):
            malformed.report("history", "a history")
            malformed.report("item", "an item")
        clock[0] = LOG_INTERVAL_S
        malformed.report("history", "another history")
        malformed.report("history", "a third history")
    assert [(line["reason"], line["not_logged"]) for line in logs] == [
        ("a history", 0), ("an item", 0), ("another history", 999),
    ]  # fmt: skip

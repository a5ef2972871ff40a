"""Metrics of the recommendation path: stages, candidates, recommended items, fallbacks, the bundle in use."""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

from ecrs.rpc.metrics import LATENCY_BUCKETS_S

STAGE_SECONDS = Histogram(
    "ecrs_stage_seconds", "Time of a stage of a request", ["stage", "outcome"], buckets=LATENCY_BUCKETS_S
)
CANDIDATES_FOUND = Counter(
    "ecrs_candidates_total", "Candidates, counted for each channel that found them", ["channel"]
)
ITEMS_RECOMMENDED = Counter(
    "ecrs_recommended_total", "Recommended items, counted for each channel that found them", ["channel"]
)
EMPTY_ANSWERS = Counter("ecrs_empty_answers_total", "Answers without a single item")
DEGRADED_ANSWERS = Counter(
    "ecrs_degraded_total", "Answers in which a fallback replaced a failed stage", ["stage", "fallback"]
)
MALFORMED_RECORDS = Counter(
    "ecrs_malformed_records_total",
    "Reads of a malformed record in the profile store, which was treated as missing",
    ["record"],
)
RANKING_DEPTH = Gauge(
    "ecrs_ranking_depth",
    "Ranking depth: the share of the candidates that the gateway ranks; below 1 under load",
    ["service"],
)
JOURNAL_ENTRIES_SKIPPED = Counter(
    "ecrs_journal_entries_skipped_total", "Malformed entries of the item journal that were left out"
)
BUNDLE_INFO = Gauge("ecrs_bundle_info", "The bundle version in use; the value is 1", ["service", "version"])


def set_bundle_version(service: str, version: str) -> None:
    """Publish the bundle version that `service` uses, in place of the last one; none if it is empty."""
    for labels in [labels for labels, *_ in BUNDLE_INFO._metrics.items() if labels[0] == service]:
        BUNDLE_INFO.remove(*labels)
    if version:
        BUNDLE_INFO.labels(service, version).set(1)


def count_channels(counter: Counter, counts: Mapping[str, int]) -> None:
    """Add `counts`, by channel name, to `counter`."""
    for channel, count in counts.items():
        counter.labels(channel).inc(count)

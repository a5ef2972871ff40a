"""The dashboard, alert rules and Prometheus configuration match what the services expose."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from ecrs.features.ranking import CHANNELS
from ecrs.ports import METRICS_OFFSET, PORTS
from tests.metrics import declared

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "images" / "observe"

FROM_PROMETHEUS = {"up": (), "ALERTS": ("alertname", "alertstate", "severity")}
TARGET_LABELS = {"job", "instance"}
LABEL_VALUES = {
    "service": set(PORTS),
    "job": {*PORTS, "milvus"},
    "channel": {*CHANNELS, "cold_start"},
    "stage": {"user", "recall", "item", "rank"},
}
"""The possible values of labels with a fixed set; in a regular expression, `|` separates them."""


def exposed() -> dict[str, set[str]]:
    """Return every series name that Prometheus scrapes from a service, with its labels."""
    names: dict[str, set[str]] = {}
    for name, metric in declared().items():
        if metric.type == "histogram":
            names |= {f"{name}_{part}": set(metric.labels) for part in ("count", "sum")}
            names[f"{name}_bucket"] = {*metric.labels, "le"}
        else:
            names[name] = set(metric.labels)
    own = [metric for metric in REGISTRY.collect() if metric.name.startswith(("process_", "python_"))]
    names |= {sample.name: set(sample.labels) for metric in own for sample in metric.samples}
    return names | {name: set(labels) for name, labels in FROM_PROMETHEUS.items()}


def dashboard() -> dict[str, Any]:
    return json.loads((OBSERVE / "grafana" / "dashboards" / "ecrs.json").read_text())


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((OBSERVE / "rules.yaml").read_text())["groups"]
    return group["rules"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield each PromQL expression with the title of its panel or the name of its alert."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


PROMQL_WORDS = (
    *("sum", "min", "max", "count", "rate", "by", "on", "or", "and", "group_left", "vector", "absent"),
    *("histogram_quantile", "avg_over_time", "max_over_time", "min_over_time"),
)
"""The PromQL keywords and functions in use."""


def metrics_of(query: str) -> list[tuple[str, dict[str, tuple[str, str]]]]:
    """Return the metrics of a query, each with its matchers: label → (operator, value)."""
    bare = re.sub(r"\[[^]]*\]", "", query)
    bare = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)", "", bare)
    metrics = []
    for name, _, inside in re.findall(r"\b([a-zA-Z_]\w*)\b(\{([^}]*)\})?", re.sub(r'"[^"]*"', as_hex, bare)):
        if name not in PROMQL_WORDS:
            matchers = re.findall(r"(\w+)(=~|!~|!=|=)\"<([0-9a-f]*)>\"", inside)
            metrics.append(
                (name, {label: (op, bytes.fromhex(value).decode()) for label, op, value in matchers})
            )
    return metrics


def as_hex(value: re.Match[str]) -> str:
    """Replace a quoted string by hexadecimal digits, so that nothing in it is read as a name."""
    return f'"<{value[0][1:-1].encode().hex()}>"'


@pytest.mark.parametrize(("title", "query"), list(queries()))
def test_query_uses_existing_metrics_and_labels(title: str, query: str) -> None:
    names = exposed()
    metrics = metrics_of(query)
    assert metrics, f"{title}: no metric in {query}"
    for name, matchers in metrics:
        assert name in names, f"{title}: no metric {name}"
        for label, (operator, value) in matchers.items():
            assert label in names[name] | TARGET_LABELS, f"{title}: {name} has no label {label}"
            if label in LABEL_VALUES:
                values = value.split("|") if "~" in operator else [value]
                assert set(values) <= LABEL_VALUES[label], f"{title}: {label} is never {value}"
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", query))))
    assert grouped <= TARGET_LABELS.union(*(names[name] for name, _ in metrics)), f"{title}: {grouped}"


def test_query_check_detects_unknown_metrics_and_labels() -> None:
    """Checks that the test above parses queries correctly."""
    query = 'sum by (le) (rate(ecrs_rpc_seconds_bucket{service="gateway",method!~"a|b{"}[5m])) or up'
    assert metrics_of(query) == [
        ("ecrs_rpc_seconds_bucket", {"service": ("=", "gateway"), "method": ("!~", "a|b{")}),
        ("up", {}),
    ]
    for wrong in (
        "ecrs_rpc_secs",
        'ecrs_rpc_total{stage="rank"}',
        'up{job="gatevay"}',
        "sum by (fallback) (up)",
    ):
        with pytest.raises(AssertionError):
            test_query_uses_existing_metrics_and_labels("wrong", wrong)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        name
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
        for name, _ in metrics_of(target["expr"])
    }
    for name in set(declared()):
        assert any(series.startswith(name) for series in shown), f"{name} is nowhere"


def test_every_gauge_has_labels() -> None:
    """Every service declares every metric, and would expose an unlabelled gauge that it never sets as 0."""
    assert [name for name, metric in declared().items() if metric.type == "gauge" and not metric.labels] == []


def test_legends_use_labels_of_their_query() -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            names = exposed()
            assert used <= TARGET_LABELS.union(*(names[name] for name, _ in metrics_of(target["expr"]))), (
                panel["title"]
            )


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def test_prometheus_scrapes_metrics_port_of_each_service() -> None:
    config = yaml.safe_load((OBSERVE / "prometheus.yaml").read_text())
    scraped = {}
    for job in config["scrape_configs"]:
        (by_dns,) = job["dns_sd_configs"]
        (host,) = by_dns["names"]
        assert host.removesuffix(".ecrs") == job["job_name"]
        scraped[job["job_name"]] = by_dns["port"]
    assert scraped == {name: port + METRICS_OFFSET for name, port in PORTS.items()} | {"milvus": 9091}


def test_alert_covers_absence_of_each_target() -> None:
    (gone,) = [rule["expr"] for rule in rules() if rule["alert"] == "EcrsDown"]
    assert set(re.findall(r'absent\(up\{job="(\w+)"\}\)', gone)) == LABEL_VALUES["job"]


def test_grafana_data_source_matches_dashboard() -> None:
    (source,) = yaml.safe_load((OBSERVE / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    config = yaml.safe_load((OBSERVE / "prometheus.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": source["uid"]}


def test_each_alert_has_a_runbook_section_and_a_test() -> None:
    page = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    alerts = {rule["alert"] for rule in rules()}
    assert set(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == alerts
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/how-to/operate.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
    all_firing = yaml.safe_load((OBSERVE / "rules.test.yaml").read_text())["tests"][1]
    fired = [sample["labels"] for sample in all_firing["promql_expr_test"][0]["exp_samples"]]
    assert {re.search(r'alertname="(\w+)"', labels)[1] for labels in fired} == alerts

"""Dashboard, alert rules and Prometheus' configuration speak of what the services really expose."""

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
TARGET = {"job", "instance"}
VALUES = {
    "service": set(PORTS),
    "job": {*PORTS, "milvus"},
    "channel": {*CHANNELS, "cold_start"},
    "stage": {"user", "recall", "item", "rank"},
}
"""Of the labels whose values are known; a regular expression's are between its bars."""


def exposed() -> dict[str, set[str]]:
    """Every name that Prometheus gets from a service, with its labels."""
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
    """Each expression, under the name of its panel or alert."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


WORDS = (
    *("sum", "min", "max", "count", "rate", "by", "on", "or", "and", "group_left", "vector", "absent"),
    *("histogram_quantile", "avg_over_time", "max_over_time", "min_over_time"),
)
"""Of PromQL, those in use."""


def told(query: str) -> list[tuple[str, dict[str, tuple[str, str]]]]:
    """The metrics of a query, each with its matchers: label to operator and value."""
    bare = re.sub(r"\[[^]]*\]", "", query)
    bare = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)", "", bare)
    found = []
    for name, _, inside in re.findall(r"\b([a-zA-Z_]\w*)\b(\{([^}]*)\})?", re.sub(r'"[^"]*"', masked, bare)):
        if name not in WORDS:
            matchers = re.findall(r"(\w+)(=~|!~|!=|=)\"<([0-9a-f]*)>\"", inside)
            found.append(
                (name, {label: (op, bytes.fromhex(value).decode()) for label, op, value in matchers})
            )
    return found


def masked(value: re.Match[str]) -> str:
    """A quoted string as hexadecimal digits: whatever it holds is no name."""
    return f'"<{value[0][1:-1].encode().hex()}>"'


@pytest.mark.parametrize(("title", "query"), list(queries()))
def test_a_query_names_metrics_and_labels_that_are_there(title: str, query: str) -> None:
    names = exposed()
    metrics = told(query)
    assert metrics, f"{title}: no metric in {query}"
    for name, matchers in metrics:
        assert name in names, f"{title}: no metric {name}"
        for label, (operator, value) in matchers.items():
            assert label in names[name] | TARGET, f"{title}: {name} has no label {label}"
            if label in VALUES:
                values = value.split("|") if "~" in operator else [value]
                assert set(values) <= VALUES[label], f"{title}: {label} is never {value}"
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", query))))
    assert grouped <= TARGET.union(*(names[name] for name, _ in metrics)), f"{title}: {grouped}"


def test_a_name_or_label_that_is_not_there_is_noticed() -> None:
    """Of the test above: it reads queries as meant."""
    query = 'sum by (le) (rate(ecrs_rpc_seconds_bucket{service="gateway",method!~"a|b{"}[5m])) or up'
    assert told(query) == [
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
            test_a_query_names_metrics_and_labels_that_are_there("wrong", wrong)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        name
        for panel in dashboard()["panels"]
        for t in panel.get("targets", [])
        for name, _ in told(t["expr"])
    }
    for name in set(declared()):
        assert any(one.startswith(name) for one in shown), f"{name} is nowhere"


def test_every_gauge_has_labels() -> None:
    """Every service declares every metric, and exposes a gauge without labels as 0 if it never sets it."""
    assert [name for name, metric in declared().items() if metric.type == "gauge" and not metric.labels] == []


def test_legends_name_labels_of_their_query() -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            names = exposed()
            assert used <= TARGET.union(*(names[name] for name, _ in told(target["expr"]))), panel["title"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
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


def test_prometheus_asks_each_service_where_its_metrics_are() -> None:
    config = yaml.safe_load((OBSERVE / "prometheus.yaml").read_text())
    asked = {}
    for job in config["scrape_configs"]:
        (by_dns,) = job["dns_sd_configs"]
        (host,) = by_dns["names"]
        assert host == job["job_name"]
        asked[host] = by_dns["port"]
    assert asked == {name: port + METRICS_OFFSET for name, port in PORTS.items()} | {"milvus": 9091}


def test_each_target_that_is_asked_is_missed_when_it_is_gone() -> None:
    (gone,) = [rule["expr"] for rule in rules() if rule["alert"] == "EcrsGone"]
    assert set(re.findall(r'absent\(up\{job="(\w+)"\}\)', gone)) == VALUES["job"]


def test_grafana_finds_the_source_that_the_dashboard_asks() -> None:
    (source,) = yaml.safe_load((OBSERVE / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    config = yaml.safe_load((OBSERVE / "prometheus.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": source["uid"]}


def test_each_alert_has_its_section_and_its_test() -> None:
    page = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    alerts = {rule["alert"] for rule in rules()}
    assert set(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == alerts
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/how-to/operate.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
    wrong = yaml.safe_load((OBSERVE / "rules.test.yaml").read_text())["tests"][1]
    fired = [sample["labels"] for sample in wrong["promql_expr_test"][0]["exp_samples"]]
    assert {re.search(r'alertname="(\w+)"', labels)[1] for labels in fired} == alerts

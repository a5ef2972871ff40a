"""Prometheus of compose.observe.yaml scrapes the stack, answers the dashboard's queries and fires alerts."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from ecrs.ports import PORTS
from tests.compose.conftest import PROJECT, Stack, run, wait_until
from tests.unit.test_observe import dashboard

CONTAINER = f"{PROJECT}-prometheus-1"
OVERLAY = ("--file", "compose.yaml", "--file", "compose.observe.yaml")
EMPTY_WHEN_HEALTHY = {
    "Alerts",
    "Calls that did not end with 200",
    "Stages that were not ok",
    "Share of answers by stage and fallback",
    "Failures",
}
"""Titles of panels that have nothing to show while the platform is healthy."""


class Prometheus:
    def __init__(self) -> None:
        (self.container,) = json.loads(run("docker", "inspect", CONTAINER))
        ports = self.container["NetworkSettings"]["Ports"]
        ((self.published,),) = [addresses for addresses in ports.values() if addresses]

    def get(self, path: str, **parameters: str) -> Any:
        """Return `data` of the HTTP API's response. An invalid query raises HTTPError."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self.published['HostIp']}:{self.published['HostPort']}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)["data"]

    def query(self, query: str) -> list[dict[str, Any]]:
        """Return the result of a PromQL query."""
        return self.get("query", query=query)["result"]


@pytest.fixture(scope="module")
def prometheus(stack: Stack) -> Iterator[Prometheus]:
    try:
        stack.compose(*OVERLAY, "up", "--detach", "--no-deps", "--wait", "prometheus", limit_s=120)
        yield Prometheus()
    finally:
        stack.compose(*OVERLAY, "rm", "--stop", "--force", "prometheus")
        run("docker", "volume", "rm", f"{PROJECT}_prometheus")


@pytest.fixture(scope="module")
def traffic(prometheus: Prometheus, stack: Stack, stored: dict[str, Any]) -> None:
    """Call the gateway until Prometheus has two samples of every service's answers, which a rate needs."""

    def every_service_has_a_rate() -> bool:
        stack.client("as", stored["user"])
        rates = prometheus.query('sum by (service) (rate(ecrs_rpc_total{error_code="200"}[1m])) > 0')
        return {series["metric"]["service"] for series in rates} == set(PORTS)

    wait_until("a rate of every service's answers", every_service_has_a_rate, 60)


def test_every_target_is_up(prometheus: Prometheus) -> None:
    def all_up() -> bool:
        targets = prometheus.get("targets", state="active")["activeTargets"]
        jobs = {target["labels"]["job"] for target in targets if target["health"] == "up"}
        return jobs == {*PORTS, "milvus"} and all(target["health"] == "up" for target in targets)

    wait_until("every target up", all_up, 60)


def test_prometheus_is_unprivileged_and_published_on_loopback_only(prometheus: Prometheus) -> None:
    host = prometheus.container["HostConfig"]
    assert prometheus.container["Config"]["User"].split(":")[0] == "65534"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert prometheus.published["HostIp"] == "127.0.0.1"


def test_promtool_accepts_configuration_and_rules(prometheus: Prometheus) -> None:
    run("docker", "exec", CONTAINER, "promtool", "check", "config", "/etc/ecrs/prometheus.yaml")
    run("docker", "exec", CONTAINER, "promtool", "test", "rules", "/etc/ecrs/rules.test.yaml")


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize(
    ("title", "query"),
    [
        (panel["title"], target["expr"].replace("$__rate_interval", "1m"))
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ],
)
def test_every_dashboard_query_returns_data(prometheus: Prometheus, title: str, query: str) -> None:
    series = prometheus.query(query)
    assert series or title in EMPTY_WHEN_HEALTHY


@pytest.mark.usefixtures("traffic")
def test_an_alert_fires_while_a_service_hangs(
    prometheus: Prometheus, stack: Stack, stored: dict[str, Any]
) -> None:
    def alerts(state: str) -> set[tuple[str, str]]:
        series = prometheus.query(f'ALERTS{{alertstate="{state}"}}')
        return {(alert["metric"]["alertname"], alert["metric"].get("job", "")) for alert in series}

    rank_gone = ("EcrsDown", "rank")
    assert rank_gone not in alerts("firing")
    run("docker", "pause", f"{PROJECT}-rank-1")
    try:

        def fires() -> bool:
            stack.client("as", stored["user"])
            return rank_gone in alerts("firing")

        wait_until("EcrsDown of rank", fires, 90)
        rates = prometheus.query('sum by (fallback) (rate(ecrs_degraded_total{stage="rank"}[1m]))')
        assert [series["metric"]["fallback"] for series in rates] == ["retrieval order"]
    finally:
        run("docker", "unpause", f"{PROJECT}-rank-1")
    wait_until("the end of EcrsDown", lambda: rank_gone not in alerts("firing"), 60)
    wait_until("rank healthy", lambda: stack.is_healthy("rank"), 60)

"""Prometheus of compose.observe.yaml beside the stack: what it sees, and the dashboard's questions to it."""

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
QUIET = {
    "Alerts",
    "Calls that ended in another way than 200",
    "Stages that were not ok",
    "Share of answers by stage and fallback",
    "Failures",
}
"""Panels that have nothing to show while all is well."""


class Prometheus:
    def __init__(self) -> None:
        (self.container,) = json.loads(run("docker", "inspect", CONTAINER))
        ((self.published,),) = [on for on in self.container["NetworkSettings"]["Ports"].values() if on]

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of the HTTP API's answer; a query that is wrong is an HTTPError."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self.published['HostIp']}:{self.published['HostPort']}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
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
def asked(prometheus: Prometheus, stack: Stack, known: dict[str, Any]) -> None:
    """Answers given, and seen by Prometheus at two times at least, as rates need."""

    def counted() -> float:
        stack.client("as", known["user"])
        found = prometheus.ask('sum(rate(ecrs_rpc_total{service="gateway",error_code="200"}[1m]))')
        return found and float(found[0]["value"][1])

    wait_until("a rate of answers", counted, 60)


def test_every_target_is_up(prometheus: Prometheus) -> None:
    def all_up() -> bool:
        targets = prometheus.get("targets", state="active")["activeTargets"]
        jobs = {target["labels"]["job"] for target in targets if target["health"] == "up"}
        return jobs == {*PORTS, "milvus"} and all(target["health"] == "up" for target in targets)

    wait_until("every target up", all_up, 60)


def test_it_is_confined_and_published_on_loopback_alone(prometheus: Prometheus) -> None:
    host = prometheus.container["HostConfig"]
    assert prometheus.container["Config"]["User"].split(":")[0] == "65534"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert prometheus.published["HostIp"] == "127.0.0.1"


def test_promtool_finds_configuration_and_rules_right(prometheus: Prometheus) -> None:
    run("docker", "exec", CONTAINER, "promtool", "check", "config", "/etc/ecrs/prometheus.yaml")
    run("docker", "exec", CONTAINER, "promtool", "test", "rules", "/etc/ecrs/rules.test.yaml")


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("title", "query"),
    [
        (panel["title"], target["expr"].replace("$__rate_interval", "1m"))
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ],
)
def test_the_dashboards_query_is_answered(prometheus: Prometheus, title: str, query: str) -> None:
    found = prometheus.ask(query)
    assert found or title in QUIET


@pytest.mark.usefixtures("asked")
def test_a_service_that_hangs_is_an_alert_until_it_is_back(
    prometheus: Prometheus, stack: Stack, known: dict[str, Any]
) -> None:
    def alerts(state: str) -> set[tuple[str, str]]:
        found = prometheus.ask(f'ALERTS{{alertstate="{state}"}}')
        return {(one["metric"]["alertname"], one["metric"].get("job", "")) for one in found}

    gone = ("EcrsGone", "rank")
    assert gone not in alerts("firing")
    run("docker", "pause", f"{PROJECT}-rank-1")
    try:

        def fires() -> bool:
            stack.client("as", known["user"])
            return gone in alerts("firing")

        wait_until("EcrsGone of rank", fires, 90)
        share = prometheus.ask('sum by (fallback) (rate(ecrs_degraded_total{stage="rank"}[1m]))')
        assert [one["metric"]["fallback"] for one in share] == ["retrieval order"]
    finally:
        run("docker", "unpause", f"{PROJECT}-rank-1")
    wait_until("the end of EcrsGone", lambda: gone not in alerts("firing"), 60)
    wait_until("rank healthy", lambda: stack.is_healthy("rank"), 60)

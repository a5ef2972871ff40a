"""The benchmark runs and its results are complete. No test checks how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ecrs.bundle import Bundle
from tests.bench.measure import ANCESTOR, CLIENTS, ECRS, HOPS, RAW, SERVED, contender
from tests.system.conftest import ROOT, UP_LIMIT_S

PROFILE = "embedded"
SERVICES = {"um", "cm", "recall", "rank", "gateway", "valkey"}


@pytest.fixture(scope="module")
def out(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of a short run."""
    out = tmp_path_factory.mktemp("bench")
    short = ["--rounds", "1", "--seconds", "0.3", "--up-to", "10", "--out", str(out)]
    command = [sys.executable, "-m", "tests.bench", str(tiny.path), *short]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=2 * UP_LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "bench.json").read_text())[PROFILE]


def test_every_contender_answers_and_no_call_fails(results: dict[str, Any]) -> None:
    served = {contender(name, clients) for name in SERVED for clients in CLIENTS}
    assert set(results["closed"]) == {RAW, HOPS} | served
    assert set(results["open"]) == set(SERVED)
    rows = [*results["closed"].values(), *(row for name in SERVED for row in results["open"][name].values())]
    assert all(row["calls"] and not row["failed"] for row in rows)


def test_the_ancestor_returns_the_same_items_as_ecrs(results: dict[str, Any]) -> None:
    assert results["same_items"] == {ECRS: 1, ANCESTOR: 1}


def test_ecrs_is_compared_with_every_other_contender(results: dict[str, Any]) -> None:
    for other in (RAW, HOPS, ANCESTOR):
        assert any(
            name.endswith(other) and ratio["low"] > 0 for name, ratio in results["ratios"].items() if ratio
        )


def test_cpu_and_memory_are_measured_for_every_process(results: dict[str, Any], tiny: Bundle) -> None:
    assert results["bundle"] == tiny.version
    for name in SERVED:
        assert set(results["cpu_ms_per_call"][name]) == set(results["rss_mb"][name]) == SERVICES
        assert sum(results["cpu_ms_per_call"][name].values()) > 0
    assert set(results["held"]) == {ECRS, ANCESTOR}


def test_the_results_are_plotted(out: Path) -> None:
    assert (out / f"{PROFILE}.svg").read_text().rstrip().endswith("</svg>")
    assert (out / f"{PROFILE}.png").stat().st_size > 10_000

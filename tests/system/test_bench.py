"""The benchmark runs and counts; how fast anything is, no test says."""

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
    """What a short run wrote."""
    out = tmp_path_factory.mktemp("bench")
    short = ["--rounds", "1", "--seconds", "0.3", "--up-to", "10", "--out", str(out)]
    command = [sys.executable, "-m", "tests.bench", str(tiny.path), *short]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=2 * UP_LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def found(out: Path) -> dict[str, Any]:
    return json.loads((out / "bench.json").read_text())[PROFILE]


def test_every_contender_answers_and_none_fails(found: dict[str, Any]) -> None:
    served = {contender(name, clients) for name in SERVED for clients in CLIENTS}
    assert set(found["closed"]) == {RAW, HOPS} | served
    assert set(found["open"]) == set(SERVED)
    rows = [*found["closed"].values(), *(row for of in SERVED for row in found["open"][of].values())]
    assert all(row["calls"] and not row["failed"] for row in rows)


def test_the_ancestor_answers_the_same(found: dict[str, Any]) -> None:
    assert found["same_items"] == {ECRS: 1, ANCESTOR: 1}


def test_ecrs_is_compared_with_all_others(found: dict[str, Any]) -> None:
    for other in (RAW, HOPS, ANCESTOR):
        assert any(
            name.endswith(other) and ratio["low"] > 0 for name, ratio in found["ratios"].items() if ratio
        )


def test_every_process_is_accounted_for(found: dict[str, Any], tiny: Bundle) -> None:
    assert found["bundle"] == tiny.version
    for name in SERVED:
        assert set(found["cpu_ms_per_call"][name]) == set(found["rss_mb"][name]) == SERVICES
        assert sum(found["cpu_ms_per_call"][name].values()) > 0
    assert set(found["held"]) == {ECRS, ANCESTOR}


def test_the_run_is_drawn(out: Path) -> None:
    assert (out / f"{PROFILE}.svg").read_text().rstrip().endswith("</svg>")
    assert (out / f"{PROFILE}.png").stat().st_size > 10_000

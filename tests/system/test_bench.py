"""The benchmark runs and counts; how fast anything is, no test says."""

import json
import subprocess
import sys
from pathlib import Path

from ecrs.bundle import Bundle
from tests.system.conftest import ROOT, UP_LIMIT_S


def test_every_contender_answers_and_none_fails(tiny: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    short = ["--rounds", "1", "--seconds", "0.5", "--out", str(out)]
    command = [sys.executable, "-m", "tests.bench", str(tiny.path), *short]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=2 * UP_LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["bundle"] == tiny.version
    assert set(found["contenders"]) == {"floor", "floor with hops", "ECRS, 1", "ECRS, 8", "ECRS, 32"}
    assert all(row["calls"] and not row["failed"] for row in found["contenders"].values())
    assert set(found["p50 against"]) == {"floor", "floor with hops"}
    assert set(found["cpu_ms_per_call"]) == {"valkey", "um", "cm", "recall", "rank", "gateway"}
    assert sum(found["cpu_ms_per_call"].values()) > 0

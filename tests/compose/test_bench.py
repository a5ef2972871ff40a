"""The benchmark measures the running containers. No test checks how fast anything is."""

import json
import sys
from pathlib import Path

from tests.bench.measure import ANCESTOR, ECRS, SERVED
from tests.compose.conftest import PROJECT, ROOT, Stack, run

STORES = {"redis", "milvus", "serving-user-tower", "serving-ranker"}
SERVICES = {"um", "cm", "recall", "rank", "gateway"}


def test_every_contender_answers_from_the_same_servers(stack: Stack, tmp_path: Path) -> None:
    place = ["--profile", "compose", "--project", PROJECT, "--secrets", str(stack.secrets)]
    short = ["--rounds", "1", "--seconds", "0.5", "--up-to", "10", "--out", str(tmp_path)]
    run(sys.executable, "-m", "tests.bench", *place, *short, limit_s=180, cwd=ROOT)
    results = json.loads((tmp_path / "bench.json").read_text())["compose"]
    rows = [*results["closed"].values(), *(row for name in SERVED for row in results["open"][name].values())]
    assert all(row["calls"] > row["failed"] for row in rows)
    # The ancestor returns the same items about as often as ECRS itself does when it is called again.
    assert results["same_items"][ANCESTOR] >= results["same_items"][ECRS] - 0.1
    assert all(set(results["cpu_ms_per_call"][name]) == STORES | SERVICES for name in SERVED)

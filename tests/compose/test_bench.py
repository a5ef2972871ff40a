"""The benchmark measures the running containers; how fast anything is, no test says."""

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
    found = json.loads((tmp_path / "bench.json").read_text())["compose"]
    rows = [*found["closed"].values(), *(row for of in SERVED for row in found["open"][of].values())]
    assert all(row["calls"] > row["failed"] for row in rows)
    # As often as ECRS itself answers the same when it is asked again, or nearly.
    assert found["same_items"][ANCESTOR] >= found["same_items"][ECRS] - 0.1
    assert all(set(found["cpu_ms_per_call"][name]) == STORES | SERVICES for name in SERVED)

"""Measures how start time, memory by process and response time grow with the catalogue.

python -m tests.bench.growth BUNDLE… [--seconds S] [--out FILE]: starts the embedded platform twice with each
of the bundles, which tests.bench.grow makes; the first start seeds the store. One client calls the gateway.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.bundle import Bundle
from ecrs.local.processes import ChildProcesses
from ecrs_cli.embedded import embedded_platform
from tests.bench.load import CLOSED, Generator, LoadPlan
from tests.bench.processes import ROOT

GATEWAY = "127.0.0.1:8930"
USERS = 200


def memory_mb(children: ChildProcesses) -> dict[str, dict[str, int]]:
    """Return the memory of each process: all resident pages, and its own pages without those of files."""
    memory = {}
    for name, process in children.processes.items():
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        memory[name] = {"resident": kb["Rss"] // 1024, "own": kb["Anonymous"] // 1024}
    return memory


def response_times(users: Sequence[str], seconds: float) -> dict[str, Any]:
    with Generator(users) as generator:
        sample = generator.run(LoadPlan(GATEWAY, CLOSED, seconds, clients=1))
    p50, p99 = np.percentile(np.array(sample.took_s) * 1000, [50, 99]).round(2).tolist()
    return {"calls": len(sample.took_s), "p50_ms": p50, "p99_ms": p99, "degraded": sample.degraded}


async def measure(bundle: Bundle, seconds: float) -> dict[str, Any]:
    users = [line.split(":")[0] for line in bundle.lines("users.dat")]
    users = users[:: max(1, len(users) // USERS)][:USERS]
    results: dict[str, Any] = {"bundle": bundle.version, "products": bundle.count("products.dat")}
    with tempfile.TemporaryDirectory() as run_dir:
        for start in ("first_start_s", "start_s"):
            begun = time.monotonic()
            async with embedded_platform(bundle, Path(run_dir)) as children:
                results[start] = round(time.monotonic() - begun, 1)
                if start == "start_s":
                    await asyncio.to_thread(response_times, users, 1.0)  # warm-up
                    results |= await asyncio.to_thread(response_times, users, seconds)
                    results["memory_mb"] = memory_mb(children)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.growth")
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "bench" / "growth.json")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = []
    for path in arguments.bundles:
        results.append(asyncio.run(measure(Bundle.open(path), arguments.seconds)))
        print(json.dumps(results[-1]), flush=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

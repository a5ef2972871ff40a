"""What grows with the catalogue: start, memory by process and the time of an answer, bundle by bundle.

python -m tests.bench.growth BUNDLE… [--seconds S] [--out FILE]: starts the embedded platform over each of
the bundles (tests.bench.grow makes them), twice: the first start seeds. One client asks the gateway.
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
from tests.bench.load import CLOSED, Generator, Order
from tests.bench.processes import ROOT

GATEWAY = "127.0.0.1:8930"
USERS = 200


def memory_mb(children: ChildProcesses) -> dict[str, dict[str, int]]:
    """By process: all that is resident, and of that what is its own, not a file's pages."""
    found = {}
    for name, process in children.processes.items():
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        found[name] = {"resident": kb["Rss"] // 1024, "own": kb["Anonymous"] // 1024}
    return found


def answers(users: Sequence[str], seconds: float) -> dict[str, Any]:
    with Generator(users) as generator:
        found = generator.run(Order(GATEWAY, CLOSED, seconds, clients=1))
    p50, p99 = np.percentile(np.array(found.took_s) * 1000, [50, 99]).round(2).tolist()
    return {"calls": len(found.took_s), "p50_ms": p50, "p99_ms": p99, "degraded": found.degraded}


async def measure(bundle: Bundle, seconds: float) -> dict[str, Any]:
    users = [line.split(":")[0] for line in bundle.lines("users.dat")]
    users = users[:: max(1, len(users) // USERS)][:USERS]
    found: dict[str, Any] = {"bundle": bundle.version, "products": bundle.count("products.dat")}
    with tempfile.TemporaryDirectory() as run_dir:
        for start in ("first_start_s", "start_s"):
            begun = time.monotonic()
            async with embedded_platform(bundle, Path(run_dir)) as children:
                found[start] = round(time.monotonic() - begun, 1)
                if start == "start_s":
                    await asyncio.to_thread(answers, users, 1.0)  # warm
                    found |= await asyncio.to_thread(answers, users, seconds)
                    found["memory_mb"] = memory_mb(children)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.growth")
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "bench" / "growth.json")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    found = []
    for path in arguments.bundles:
        found.append(asyncio.run(measure(Bundle.open(path), arguments.seconds)))
        print(json.dumps(found[-1]), flush=True)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

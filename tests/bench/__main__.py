"""How near ECRS is to the floor of its own stages, in one interleaved run.

python -m tests.bench [BUNDLE] [--rounds N] [--seconds S] [--out FILE]: starts the embedded platform over the
bundle, prints a table and ratios with 95 % intervals over the rounds, and writes artifacts/bench/bench.json.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform as machine
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis

from ecrs.bundle import Bundle
from ecrs.embedded import Children, platform
from tests.bench.floor import CANDIDATES, ROOT, Floor, FloorWithHops, Inputs, echoes

GATEWAY = "127.0.0.1:8930"
CLIENTS = (1, 8, 32)
USERS = 40
RAW, HOPS, ECRS = "floor", "floor with hops", "ECRS"


def closed_loop(answer: Callable[[Inputs], None], floor: Floor, seconds: float) -> dict[str, Any]:
    took, end = [], time.monotonic() + seconds
    for one in itertools.cycle(floor.inputs):
        if time.monotonic() >= end:
            break
        begun = time.perf_counter()
        answer(one)
        took.append(time.perf_counter() - begun)
    return {"took": took, "failed": 0, "degraded": 0}


def asked(clients: int, seconds: float, users: Sequence[str]) -> dict[str, Any]:
    """The gateway, by a process of its own."""
    command = [sys.executable, "-m", "tests.bench.load", GATEWAY, str(clients), str(seconds)]
    done = subprocess.run(
        command, input="\n".join(users), capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout)


def summary(rounds: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    took = np.concatenate([np.array(one["took"]) for one in rounds]) * 1000
    p50, p99, p999 = np.percentile(took, [50, 99, 99.9])
    return {
        "calls": len(took),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "p99.9_ms": round(p999, 2),
        "per_s": round(len(took) / (seconds * len(rounds)), 1),
        "failed": sum(one["failed"] for one in rounds),
        "degraded": sum(one["degraded"] for one in rounds),
    }


def ratio(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of the medians, round by round: their mean, and a bootstrap's 95 % interval over the rounds."""
    each = np.array([np.median(a["took"]) / np.median(b["took"]) for a, b in zip(ours, theirs, strict=True)])
    drawn = np.random.default_rng(0).choice(each, (2000, len(each))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"ratio": round(each.mean(), 2), "low": round(low, 2), "high": round(high, 2)}


def cpu_s(children: Children) -> dict[str, float]:
    ticks = os.sysconf("SC_CLK_TCK")
    used = {}
    for name, process in children.processes.items():
        after_name = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        used[name] = (int(after_name[11]) + int(after_name[12])) / ticks
    return used


def rss_mb(children: Children) -> dict[str, int]:
    pages = {
        name: int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        for name, process in children.processes.items()
    }
    return {name: count * os.sysconf("SC_PAGE_SIZE") // 2**20 for name, count in pages.items()}


async def bench(bundle: Bundle, rounds: int, seconds: float) -> dict[str, Any]:
    users = [line.split(":")[0] for line in bundle.lines("users.dat")]
    users = users[:: max(1, len(users) // USERS)][:USERS]
    with tempfile.TemporaryDirectory() as run_dir, echoes(5) as targets:
        async with platform(bundle, Path(run_dir)) as children:
            store = redis.Redis.from_url(children.redis_url)
            floor = await asyncio.to_thread(Floor, bundle, users, store)
            with_hops = FloorWithHops(floor, targets)
            contenders: dict[str, Callable[[], dict[str, Any]]] = {
                RAW: lambda: closed_loop(floor.answer, floor, seconds),
                HOPS: lambda: closed_loop(with_hops.answer, floor, seconds),
            }
            for clients in CLIENTS:
                contenders[f"{ECRS}, {clients}"] = lambda clients=clients: asked(clients, seconds, users)
            seen: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
            for contender in contenders.values():  # warm
                await asyncio.to_thread(contender)
            used, spent = dict.fromkeys(children.processes, 0.0), 0
            for _ in range(rounds):
                for name, contender in contenders.items():
                    before = cpu_s(children)
                    seen[name].append(await asyncio.to_thread(contender))
                    if name.startswith(ECRS):
                        spent += len(seen[name][-1]["took"])
                        used = {part: used[part] + s - before[part] for part, s in cpu_s(children).items()}
            one = seen[f"{ECRS}, 1"]
            return {
                "machine": {"cpu": machine.machine(), "cores": os.cpu_count(), "system": machine.platform()},
                "bundle": bundle.version,
                "products": bundle.count("products.dat"),
                "candidates": CANDIDATES,
                "profile": "embedded",
                "rounds": rounds,
                "seconds": seconds,
                "contenders": {name: summary(of, seconds) for name, of in seen.items()},
                "p50 against": {RAW: ratio(one, seen[RAW]), HOPS: ratio(one, seen[HOPS])},
                "cpu_ms_per_call": {part: round(s / spent * 1000, 2) for part, s in used.items()},
                "rss_mb": rss_mb(children),
            }


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "artifacts" / "bundles" / "current")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "bench" / "bench.json")
    arguments = parser.parse_args()
    found = asyncio.run(bench(Bundle.open(arguments.bundle), arguments.rounds, arguments.seconds))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{'':16} {'calls':>7} {'p50 ms':>8} {'p99 ms':>8} {'p99.9':>8} {'per s':>7} failed degraded")
    for name, row in found["contenders"].items():
        print(
            f"{name:16} {row['calls']:7} {row['p50_ms']:8.2f} {row['p99_ms']:8.2f} {row['p99.9_ms']:8.2f} "
            f"{row['per_s']:7.1f} {row['failed']:6} {row['degraded']:8}"
        )
    for name, row in found["p50 against"].items():
        print(f"p50 of ECRS, one client, against the {name}: {row['ratio']} ({row['low']} to {row['high']})")
    print(f"CPU a call, ms: {found['cpu_ms_per_call']}; memory, MB: {found['rss_mb']}\n{arguments.out}")


if __name__ == "__main__":
    main()

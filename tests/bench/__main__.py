"""How near ECRS is to the floor of its own stages, and how far from the way it came, in one interleaved run.

python -m tests.bench [BUNDLE]                 starts the embedded platform over the bundle
python -m tests.bench --profile compose        takes the containers that run here

Prints tables and ratios with 95 % intervals; writes bench.json, a run a profile, and PROFILE.svg and
PROFILE.png to artifacts/bench. docs/explanation/speed.md says what is measured.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecrs.bundle import Bundle
from tests.bench.figures import GOAL_MS, held_ratio, highest_held, p50, per_s, ratio, row
from tests.bench.machine import hardware
from tests.bench.measure import (
    ANCESTOR,
    CANDIDATES,
    CLIENTS,
    ECRS,
    HOPS,
    RATES,
    RAW,
    SERVED,
    Measured,
    Plan,
    contender,
    measure,
)
from tests.bench.plots import draw
from tests.bench.processes import ROOT
from tests.bench.sites import Site, compose, embedded

COLUMNS = ("calls", "p50_ms", "p99_ms", "p99.9_ms", "per_s", "failed", "shed", "degraded")


def found(site: Site, plan: Plan, seen: Measured) -> dict[str, Any]:
    """What bench.json holds."""
    return {
        "profile": site.profile,
        "machine": hardware(),
        "versions": seen.versions,
        "bundle": site.bundle.version,
        "products": site.bundle.count("products.dat"),
        "candidates": CANDIDATES,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "closed": {name: row(samples) for name, samples in seen.closed.items()},
        "open": {
            name: {str(rate): row(rates[rate]) for rate in sorted(rates)} for name, rates in seen.open.items()
        },
        "held": {name: highest_held(seen.steady[name]) for name in SERVED},
        "ratios": ratios(seen),
        "same_items": {name: round(share, 4) for name, share in seen.same.items()},
        "cpu_ms_per_call": seen.cpu_ms_per_call,
        "rss_mb": seen.rss_mb,
    }


def ratios(seen: Measured) -> dict[str, dict[str, float] | None]:
    one = seen.closed[contender(ECRS, 1)]
    found = {f"p50, 1 client, to the {floor}": ratio(p50, one, seen.closed[floor]) for floor in (RAW, HOPS)}
    for clients in CLIENTS:
        ours, theirs = (seen.closed[contender(name, clients)] for name in SERVED)
        plural = "client" if clients == 1 else "clients"
        found[f"p50, {clients} {plural}, to the ancestor"] = ratio(p50, ours, theirs)
        found[f"calls a second, {clients} {plural}, to the ancestor"] = ratio(per_s, ours, theirs)
    held = held_ratio(seen.steady[ECRS], seen.steady[ANCESTOR])
    return found | {f"rate at p99 < {GOAL_MS:.0f} ms, to the ancestor": held}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """For people."""
    machine = result["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; {result['versions']}"
    yield (
        f"{result['profile']}, {result['products']:,} products, {result['candidates']} candidates, "
        f"bundle {result['bundle']}; {result['rounds']} rounds of {result['seconds']} s"
    )
    yield f"\n{'closed loop':18} " + " ".join(f"{name:>9}" for name in COLUMNS)
    for name, one in result["closed"].items():
        yield f"{name:18} " + _cells(one)
    for name, rates in result["open"].items():
        yield f"\n{name + ', calls/s':18} " + " ".join(f"{column:>9}" for column in COLUMNS)
        for rate, one in rates.items():
            yield f"{rate:>18} " + _cells(one)
    held = ", ".join(f"{name} {rate:g}/s" for name, rate in result["held"].items())
    yield f"\nHighest rate at p99 < {GOAL_MS:.0f} ms: {held}\nECRS,"
    for name, one in result["ratios"].items():
        yield f"  {name}: " + (f"{one['ratio']} ({one['low']} to {one['high']})" if one else "it holds none")
    same = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result["same_items"].items())
    yield f"Asked again, items that ECRS had answered in the same place: {same}"
    for name in SERVED:
        cpu, memory = result["cpu_ms_per_call"][name], result["rss_mb"][name]
        yield f"{name}: CPU {sum(cpu.values()):.1f} ms a call {cpu}; resident, MB {memory}"


def _cells(row: dict[str, Any]) -> str:
    return " ".join(f"{'-' if row[column] is None else row[column]:>9}" for column in COLUMNS)


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    plan = Plan(arguments.rounds, arguments.seconds, arguments.up_to)
    if arguments.profile == "compose":
        place = compose(arguments.project, arguments.secrets)
    else:
        place = embedded(Bundle.open(arguments.bundle))
    async with place as site:
        return found(site, plan, await asyncio.to_thread(measure, site, plan))


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "artifacts" / "bundles" / "current")
    parser.add_argument("--profile", choices=["embedded", "compose"], default="embedded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.5, help="of a measurement")
    parser.add_argument("--up-to", type=float, default=max(RATES), help="the open loop's highest rate")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "bench", help="directory of results")
    parser.add_argument("--project", default="ecrs", help="of compose")
    secrets = Path(os.environ.get("ECRS_SECRETS", ROOT / ".secrets"))
    parser.add_argument("--secrets", type=Path, default=secrets, help="of compose: the passwords' directory")
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments))
    arguments.out.mkdir(parents=True, exist_ok=True)
    written = arguments.out / "bench.json"
    before = json.loads(written.read_text()) if written.exists() else {}
    written.write_text(json.dumps(before | {arguments.profile: result}, indent=1) + "\n")
    print("\n".join(lines(result)))
    print(written, *draw(result, arguments.out))


if __name__ == "__main__":
    main()

"""Compares ECRS with the floor of its own stages and with the design of the original demo, in one run.

python -m tests.bench [BUNDLE]                 starts the embedded platform with the bundle
python -m tests.bench --profile compose        measures the containers that run on this host

Prints tables, and ratios with 95 % intervals. Writes bench.json, with the latest run of each profile, and
plots as PROFILE.svg and PROFILE.png to artifacts/bench. docs/explanation/speed.md explains what is measured.
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


def results(site: Site, plan: Plan, measured: Measured) -> dict[str, Any]:
    """Return the results of a run as bench.json stores them."""
    return {
        "profile": site.profile,
        "machine": hardware(),
        "versions": measured.versions,
        "bundle": site.bundle.version,
        "products": site.bundle.count("products.dat"),
        "candidates": CANDIDATES,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "closed": {name: row(samples) for name, samples in measured.closed.items()},
        "open": {
            name: {str(rate): row(rates[rate]) for rate in sorted(rates)}
            for name, rates in measured.open.items()
        },
        "held": {name: highest_held(measured.steady[name]) for name in SERVED},
        "ratios": ratios(measured),
        "same_items": {name: round(share, 4) for name, share in measured.same.items()},
        "cpu_ms_per_call": measured.cpu_ms_per_call,
        "rss_mb": measured.rss_mb,
    }


def ratios(measured: Measured) -> dict[str, dict[str, float] | None]:
    """Return the figures of ECRS relative to those of the other contenders, with their intervals."""
    one_client = measured.closed[contender(ECRS, 1)]
    relative = {
        f"p50, 1 client, relative to the {floor}": ratio(p50, one_client, measured.closed[floor])
        for floor in (RAW, HOPS)
    }
    for clients in CLIENTS:
        ours, theirs = (measured.closed[contender(name, clients)] for name in SERVED)
        noun = "client" if clients == 1 else "clients"
        relative[f"p50, {clients} {noun}, relative to the ancestor"] = ratio(p50, ours, theirs)
        relative[f"calls per second, {clients} {noun}, relative to the ancestor"] = ratio(per_s, ours, theirs)
    held = held_ratio(measured.steady[ECRS], measured.steady[ANCESTOR])
    return relative | {f"rate held at p99 < {GOAL_MS:.0f} ms, relative to the ancestor": held}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a printed report on a run."""
    machine = result["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; {result['versions']}"
    yield (
        f"{result['profile']}, {result['products']:,} products, {result['candidates']} candidates, "
        f"bundle {result['bundle']}; {result['rounds']} rounds of {result['seconds']} s"
    )
    yield f"\n{'closed loop':18} " + " ".join(f"{name:>9}" for name in COLUMNS)
    for name, figures in result["closed"].items():
        yield f"{name:18} " + _cells(figures)
    for name, rates in result["open"].items():
        yield f"\n{name + ', calls/s':18} " + " ".join(f"{column:>9}" for column in COLUMNS)
        for rate, figures in rates.items():
            yield f"{rate:>18} " + _cells(figures)
    held = ", ".join(f"{name} {rate:g}/s" for name, rate in result["held"].items())
    yield f"\nHighest rate held at p99 < {GOAL_MS:.0f} ms: {held}\nRatios of ECRS (95 % interval):"
    for name, interval in result["ratios"].items():
        text = "{ratio} ({low} to {high})".format(**interval) if interval else "the ancestor holds no rate"
        yield f"  {name}: {text}"
    same = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result["same_items"].items())
    yield f"Items at the same position as in an earlier answer of ECRS: {same}"
    for name in SERVED:
        cpu, memory = result["cpu_ms_per_call"][name], result["rss_mb"][name]
        yield f"{name}: CPU {sum(cpu.values()):.1f} ms per call {cpu}; resident memory, MB {memory}"


def _cells(row: dict[str, Any]) -> str:
    return " ".join(f"{'-' if row[column] is None else row[column]:>9}" for column in COLUMNS)


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    plan = Plan(arguments.rounds, arguments.seconds, arguments.up_to)
    if arguments.profile == "compose":
        running_site = compose(arguments.project, arguments.secrets)
    else:
        running_site = embedded(Bundle.open(arguments.bundle))
    async with running_site as site:
        return results(site, plan, await asyncio.to_thread(measure, site, plan))


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "artifacts" / "bundles" / "current")
    parser.add_argument("--profile", choices=["embedded", "compose"], default="embedded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.5, help="duration of each measurement")
    parser.add_argument(
        "--up-to", type=float, default=max(RATES), help="highest rate of the open loop, calls per second"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "bench", help="directory of results")
    parser.add_argument("--project", default="ecrs", help="name of the compose project")
    secrets = Path(os.environ.get("ECRS_SECRETS", ROOT / ".secrets"))
    parser.add_argument(
        "--secrets", type=Path, default=secrets, help="directory of the compose project's passwords"
    )
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments))
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "bench.json"
    earlier = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(earlier | {arguments.profile: result}, indent=1) + "\n")
    print("\n".join(lines(result)))
    print(file, *draw(result, arguments.out))


if __name__ == "__main__":
    main()

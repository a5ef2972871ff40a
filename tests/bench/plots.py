"""Plots a run: latency against the call rate, and the median for one client beside the floors."""

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from ecrs_models.report.plots import ACCENT, INK, LINES, PLAIN, STYLE
from tests.bench.figures import GOAL_MS
from tests.bench.measure import ANCESTOR, ECRS, HOPS, RAW, contender

COLOURS = {RAW: PLAIN, HOPS: PLAIN, ECRS: ACCENT, ANCESTOR: LINES[0]}


@matplotlib.rc_context(STYLE)
def draw(result: dict[str, Any], out: Path) -> list[Path]:
    """Write PROFILE.svg and PROFILE.png to `out` and return their paths."""
    figure = Figure(figsize=(9.4, 3.4), layout="constrained")
    rates, bars = figure.subplots(1, 2, width_ratios=[3, 2])
    _against_rate(rates, result["open"])
    _one_client(bars, result["closed"])
    files = [out / f"{result['profile']}.{kind}" for kind in ("svg", "png")]
    for file in files:
        metadata = {"Date": None, "Creator": None} if file.suffix == ".svg" else {}
        figure.savefig(file, metadata=metadata, dpi=150, facecolor="white")
    return files


def _against_rate(axis: Axes, open_loop: dict[str, dict[str, dict[str, float]]]) -> None:
    for name, rates in open_loop.items():
        calls_per_s = [float(rate) for rate in rates]
        for column, line in (("p50_ms", "-"), ("p99_ms", "--")):
            times = [math.nan if row[column] is None else row[column] for row in rates.values()]
            label = f"{name}, {column.removesuffix('_ms')}"
            axis.plot(calls_per_s, times, line, marker="o", markersize=3, color=COLOURS[name], label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(ScalarFormatter())
        scale.set_minor_locator(NullLocator())
    axis.axhline(GOAL_MS, color=INK, linewidth=0.8, linestyle=":")
    axis.set_ylim(top=max(axis.get_ylim()[1], 2 * GOAL_MS))
    axis.text(0.995, GOAL_MS, "goal for p99", transform=axis.get_yaxis_transform(), ha="right", va="bottom")
    axis.set_title("Open loop: response time, ms")
    axis.set_xlabel("calls per second")
    axis.legend(frameon=False, fontsize=8.5, loc="upper left")
    axis.grid()


def _one_client(axis: Axes, closed: dict[str, dict[str, float]]) -> None:
    keys = {RAW: RAW, HOPS: HOPS, ECRS: contender(ECRS, 1), ANCESTOR: contender(ANCESTOR, 1)}
    for y, (name, key) in enumerate(reversed(keys.items())):
        p50 = closed[key]["p50_ms"]
        axis.barh(y, p50, color=COLOURS[name], height=0.65)
        axis.text(p50, y, f" {p50:.1f} ms", va="center")
    axis.set_yticks(range(len(keys)), list(reversed(keys)))
    axis.set_xlim(0, 1.2 * max(closed[key]["p50_ms"] for key in keys.values()))
    axis.set_title("One client: p50")
    axis.set_xlabel("ms")
    axis.grid(axis="x")

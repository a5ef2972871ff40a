"""A run in one picture: latency against the rate of calls, and one client's median beside the floors."""

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
    """The files written: PROFILE.svg and PROFILE.png in `out`."""
    figure = Figure(figsize=(9.4, 3.4), layout="constrained")
    rates, bars = figure.subplots(1, 2, width_ratios=[3, 2])
    _against_rate(rates, result["open"])
    _one_client(bars, result["closed"])
    files = [out / f"{result['profile']}.{kind}" for kind in ("svg", "png")]
    for file in files:
        metadata = {"Date": None, "Creator": None} if file.suffix == ".svg" else {}
        figure.savefig(file, metadata=metadata, dpi=150, facecolor="white")
    return files


def _against_rate(axis: Axes, of: dict[str, dict[str, dict[str, float]]]) -> None:
    for name, rates in of.items():
        at = [float(rate) for rate in rates]
        for column, line in (("p50_ms", "-"), ("p99_ms", "--")):
            times = [math.nan if row[column] is None else row[column] for row in rates.values()]
            label = f"{name}, {column.removesuffix('_ms')}"
            axis.plot(at, times, line, marker="o", markersize=3, color=COLOURS[name], label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for part in (axis.xaxis, axis.yaxis):
        part.set_major_locator(LogLocator(subs=(1, 2, 5)))
        part.set_major_formatter(ScalarFormatter())
        part.set_minor_locator(NullLocator())
    axis.axhline(GOAL_MS, color=INK, linewidth=0.8, linestyle=":")
    axis.set_ylim(top=max(axis.get_ylim()[1], 2 * GOAL_MS))
    axis.text(0.995, GOAL_MS, "the goal's p99", transform=axis.get_yaxis_transform(), ha="right", va="bottom")
    axis.set_title("Open loop: time of an answer, ms")
    axis.set_xlabel("calls a second")
    axis.legend(frameon=False, fontsize=8.5, loc="upper left")
    axis.grid()


def _one_client(axis: Axes, closed: dict[str, dict[str, float]]) -> None:
    named = {RAW: RAW, HOPS: HOPS, ECRS: contender(ECRS, 1), ANCESTOR: contender(ANCESTOR, 1)}
    for place, (name, of) in enumerate(reversed(named.items())):
        p50 = closed[of]["p50_ms"]
        axis.barh(place, p50, color=COLOURS[name], height=0.65)
        axis.text(p50, place, f" {p50:.1f} ms", va="center")
    axis.set_yticks(range(len(named)), list(reversed(named)))
    axis.set_xlim(0, 1.2 * max(closed[of]["p50_ms"] for of in named.values()))
    axis.set_title("One client: p50")
    axis.set_xlabel("ms")
    axis.grid(axis="x")

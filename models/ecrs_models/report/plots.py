"""The report's plots, as SVG elements for embedding in a page. Text stays text; nothing is loaded."""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecrs_models.evaluation.results import BEST_POSSIBLE, OURS, RETRIEVAL

ACCENT, PLAIN, FAINT, INK = "#0b6e99", "#8a939b", "#e4e7ea", "#24292e"
LINES = ("#b4541a", "#5b7f2b", "#7b5ea7", "#a8891c", "#4f6d7a", "#9c3d5a")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ecrs",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": PLAIN,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
}

Row = dict[str, float]
"""A mean with its confidence interval: `mean`, `low`, `high`."""


@matplotlib.rc_context(STYLE)
def recommenders(panels: dict[str, dict[str, Row]], metric: str) -> str:
    """Plot panel → recommender → interval as dots with whiskers. ECRS is highlighted."""
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))[::-1]
    figure, axes = _figure(len(panels), height=0.9 + 0.3 * len(names), share="y")
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        for place, name in enumerate(names):
            if name in rows:
                row, colour = rows[name], ACCENT if name == OURS else PLAIN
                axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
                axis.plot(row["mean"], place, "D" if name == BEST_POSSIBLE else "o", color=colour)
        axis.set_title(title)
        axis.set_xlabel(metric)
        axis.set_xlim(left=0)
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="x")
    return _svg(figure, f"{metric} of every recommender, with 95 % intervals")


@matplotlib.rc_context(STYLE)
def funnel(panels: dict[str, dict[str, Row]]) -> str:
    """Plot panel → stage → interval as bars of the share of the ground truth that is left."""
    names = list(next(iter(panels.values())))[::-1]
    figure, axes = _figure(len(panels), height=0.9 + 0.28 * len(names), share="y")
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        means = [rows[name]["mean"] for name in names]
        colours = [ACCENT if name.startswith(("cand", "list", "sold")) else PLAIN for name in names]
        axis.barh(range(len(names)), means, color=colours, height=0.65)
        for place, mean in enumerate(means):
            axis.text(mean + 0.015, place, f"{100 * mean:.1f} %", va="center")
        axis.set_title(title)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlim(0, 1.15)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axis.grid(axis="x")
    return _svg(figure, "Share of the ground truth that is left after each stage")


@matplotlib.rc_context(STYLE)
def by_slice(panels: dict[str, dict[str, Any]], metric: str) -> str:
    """Plot panel → slice → `users` and `recommenders`: one line per recommender, over the slices."""
    figure, axes = _figure(len(panels), height=3.1, share="")
    for axis, (title, parts) in zip(axes, panels.items(), strict=True):
        places = np.arange(len(parts))
        others = 0
        for name in next(iter(parts.values()))["recommenders"] if parts else ():
            if name == RETRIEVAL:
                continue
            rows = [part["recommenders"][name][metric] for part in parts.values()]
            means, low, high = (np.array([row[key] for row in rows]) for key in ("mean", "low", "high"))
            colour = ACCENT if name == OURS else LINES[others % len(LINES)]
            others += name != OURS
            axis.errorbar(
                places,
                means,
                [means - np.minimum(low, means), np.maximum(high, means) - means],
                label=name,
                color=colour,
                marker="o",
                markersize=4,
                linewidth=2.2 if name == OURS else 1.1,
                capsize=2,
            )
        axis.set_title(title)
        axis.set_xticks(places, [f"{name}\n{part['users']:,} users" for name, part in parts.items()])
        axis.set_ylim(bottom=0)
        axis.set_ylabel(metric)
        axis.grid(axis="y")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return _svg(figure, f"{metric} by the number of distinct products that a user bought before")


@matplotlib.rc_context(STYLE)
def reliability(curve: list[dict[str, float]]) -> str:
    """Plot the share of candidates purchased over the mean score, both logarithmic, with the diagonal."""
    figure, (axis,) = _figure(1, height=3.4, width=4.6)
    points = np.array([[part["predicted"], part["observed"]] for part in curve])
    shown = points[(points > 0).all(axis=1)]
    if len(shown):
        ends = np.array([shown.min() / 1.5, min(shown.max() * 1.5, 1)])
        axis.plot(ends, ends, color=PLAIN, linewidth=1, linestyle="--", label="perfectly calibrated")
        axis.plot(*shown.T, "o-", color=ACCENT, markersize=4, label="bins of 5 % of the candidates")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.legend(frameon=False, loc="upper left")
    axis.set_xlabel("mean score")
    axis.set_ylabel("share purchased")
    axis.grid()
    return _svg(figure, "Mean score and share of candidates purchased")


def _figure(panels: int, height: float, share: str = "", width: float = 9.4) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharey=share == "y")
    return figure, list(axes[0])


def _svg(figure: Figure, label: str) -> str:
    """Render a figure as an <svg> element with `label` as its accessible name."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    body = text.getvalue()
    return body[body.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{label}"', 1)

"""report.json as one HTML page that fetches nothing and runs no script."""

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ecrs_models.evaluation.results import OURS

HEADLINES = ("recall@20", "recall@100", "ndcg@20", "ndcg@100", "hr@20")

Content = dict[str, Any]


def page(content: Content) -> str:
    """Render the content of a report as an HTML document.

    Plots need matplotlib, of the extra `evaluate`; without it, the page says that they are missing.
    """
    template = _environment().get_template("report.html")
    return template.render(**content, headlines=HEADLINES, ours=OURS, plots=_plots(content))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ecrs_models", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format, "day": _day}
    return environment


def _day(timestamp: int) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d}"


def _plots(content: Content) -> dict[str, Markup]:
    """SVG elements by name; none without matplotlib."""
    try:
        from ecrs_models.report import plots
    except ImportError:
        return {}
    metric = "recall@20"

    def panel(rows: Content) -> Content:
        return {name: row[metric] for name, row in rows.items()}

    cold = {name: panel(part["recommenders"]) for name, part in content["slices"]["cold"].items()}
    tasks = {f"task {task}": panel(rows) for task, rows in content["tasks"].items()}
    history = {f"task {task}": parts for task, parts in content["slices"]["history"].items()}
    funnel = {f"task {task}": rows for task, rows in content["funnel"].items()}
    drawn = {
        "recommenders": plots.recommenders(tasks, metric),
        "funnel": plots.funnel(funnel),
        "history": plots.by_slice(history, metric),
        "cold": plots.recommenders(cold, metric),
        "reliability": plots.reliability(content["reliability"]),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704  (matplotlib's own SVG)

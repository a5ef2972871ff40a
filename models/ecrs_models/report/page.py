"""report.json as a page that needs nothing else: no network, no script."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from ecrs_models.evaluation.results import OURS

HEADLINES = ("recall@20", "recall@100", "ndcg@20", "ndcg@100", "hr@20")
NO_PLOTS = "<p><small>No plots: matplotlib, of the extra <code>evaluate</code>, is not installed.</small></p>"

Content = dict[str, Any]
Cells = Iterable[str]


def page(content: Content) -> str:
    """The whole HTML document."""
    about = content["about"]
    settings = about["evaluation"]
    parts = {
        "bundle": escape(about["bundle"]),
        "split": escape(about["split"]),
        "data": escape(about["data"]["name"]),
        "period": " to ".join(_day(about[end]) for end in ("start", "end")),
        "caveat": escape(about["caveat"]),
        "level": f"{settings['bootstrap']['level']:.0%}",
        "candidates": str(settings["candidates"]),
        "aggregates_products": f"{settings['aggregates_products']:,}",
        "session_products": str(settings["session_products"]),
        "new_product_days": str(settings["new_product_days"]),
        "catalogue": f"{about['catalogue']:,}",
        "key": _key(content),
        "gates": "\n".join(_gate(gate) for gate in content["gates"]),
        "least": escape(content["gates"][0]["rival"]),
        "tasks": "\n".join(
            _recommenders(rows, HEADLINES, f"task {task}, {content['users'][task]:,} users")
            for task, rows in content["tasks"].items()
        ),
        "better_than": "\n".join(
            _recommenders(rows, HEADLINES[:-1], f"task {task}: ECRS minus …", sign="+")
            for task, rows in content["better_than"].items()
        ),
        "best_possible": _best_possible(content),
        "index": _index(content["index"]),
        "history": "\n".join(
            _slices(parts, f"task {task}: ") for task, parts in content["slices"]["history"].items()
        ),
        "cold": _slices(content["slices"]["cold"], ""),
        "new_products": _slices(content["slices"]["new_products"], "", ("recall@100", "recall@20")),
        "beyond_accuracy": _beyond_accuracy(content["beyond_accuracy"]),
        "calibration": _table(
            ("", "value"),
            ((name.replace("_", " "), f"{value:.4f}") for name, value in content["calibration"].items()),
        ),
        "about": _about(content),
        "training": escape(json.dumps(about["training"], indent=1)),
        **_plots(content),
    }
    template = files("ecrs_models.report").joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(parts)


def _plots(content: Content) -> dict[str, str]:
    try:
        from ecrs_models.report import plots
    except ImportError:
        names = ("recommenders", "funnel", "history", "cold", "reliability")
        return {f"{name}_plot": NO_PLOTS for name in names}
    metric = "recall@20"

    def panel(rows: Content) -> Content:
        return {name: row[metric] for name, row in rows.items()}

    cold = {name: panel(part["recommenders"]) for name, part in content["slices"]["cold"].items()}
    tasks = {f"task {task}": rows for task, rows in content["tasks"].items()}
    return {
        "recommenders_plot": plots.recommenders(
            {title: panel(rows) for title, rows in tasks.items()}, metric
        ),
        "funnel_plot": plots.funnel({f"task {task}": rows for task, rows in content["funnel"].items()}),
        "history_plot": plots.by_slice(
            {f"task {task}": parts for task, parts in content["slices"]["history"].items()}, metric
        ),
        "cold_plot": plots.recommenders(cold, metric),
        "reliability_plot": plots.reliability(content["reliability"]).replace(
            "<svg", '<svg class="small"', 1
        ),
    }


def _key(content: Content) -> str:
    """The first thing to see."""
    cells = []
    for task, rows in content["tasks"].items():
        for metric in ("recall@20", "ndcg@20"):
            row = rows[OURS][metric]
            cells.append(
                f"<div><b>{row['mean']:.4f}</b><span>{metric}, task {task}<br>"
                f"{row['low']:.4f} to {row['high']:.4f}</span></div>"
            )
    return f'<div class="key">{"".join(cells)}</div>'


def _gate(gate: Content) -> str:
    passed = "passed" if gate["passed"] else "failed"
    return (
        f'<p class="gate {passed}"><b>{passed.capitalize()}</b>: new users, {escape(gate["name"])}: '
        f"{gate['metric']} {gate['mean']:+.4f} ({gate['low']:+.4f} to {gate['high']:+.4f}) against "
        f"{escape(gate['rival'])}</p>"
    )


def _recommenders(rows: Content, metrics: tuple[str, ...], caption: str, sign: str = "") -> str:
    lines = [(name, *(_interval(row[metric], sign) for metric in metrics)) for name, row in rows.items()]
    return _table(("", *metrics), lines, caption)


def _slices(parts: Content, title: str, metrics: tuple[str, ...] = ("recall@20", "ndcg@20")) -> str:
    """A table a metric, a column a slice; then by how much ECRS is better in the first of them."""
    if not parts:
        return "<p>There are none in this period.</p>"
    head = ("", *(f"{name} ({part['users']:,} users)" for name, part in parts.items()))

    def table(of: str, metric: str, caption: str, sign: str = "") -> str:
        names = next(iter(parts.values()))[of]
        lines = [
            (name, *(_interval(part[of][name][metric], sign) for part in parts.values())) for name in names
        ]
        return _table(head, lines, title + caption)

    tables = [table("recommenders", metric, metric) for metric in metrics]
    return "\n".join([*tables, table("better_than", metrics[0], f"{metrics[0]}, ECRS minus …", sign="+")])


def _best_possible(content: Content) -> str:
    reached = {task: rows for task, rows in content["share_of_the_best_possible"].items() if rows}
    if not reached:
        return ""
    lines = [
        (f"task {task}", *(_interval(rows[metric]) for metric in HEADLINES)) for task, rows in reached.items()
    ]
    return (
        "<h3>Of what is possible</h3><p>The data are generated, so the best ranking is known: it knows every "
        "user's taste. The share of it that ECRS reaches:</p>" + _table(("", *HEADLINES), lines)
    )


def _index(index: Content) -> str:
    return (
        f"<p>The vector index finds {index['recall']:.2%} of the {index['neighbours']} true nearest products "
        f"({index['queries']} users' vectors, against a scan of all). Up to {index['exact_up_to']:,} "
        f"products the index is a scan itself.</p>"
    )


def _beyond_accuracy(tasks: Content) -> str:
    names = list(next(iter(tasks.values())))
    head = ["", *(f"{what}, {task}" for task in tasks for what in ("coverage", "novelty, bits"))]
    lines = []
    for name in names:
        cells = [name]
        for rows in tasks.values():
            novelty = rows[name]["novelty"]
            spread = f"<small>({novelty['low']:.2f} to {novelty['high']:.2f})</small>"
            cells += [f"{rows[name]['coverage']:.2%}", f"{novelty['mean']:.2f} {spread}"]
        lines.append(cells)
    return _table(head, lines)


def _about(content: Content) -> str:
    about = content["about"]
    counts, settings = about["data"]["counts"], about["evaluation"]
    bootstrap = settings["bootstrap"]
    rows = {
        "data": f"{about['data']['name']}: {about['data']['source']}. {about['caveat']}",
        "counts": ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        "period": f"{about['split']}, {_day(about['start'])} to {_day(about['end'])} (UTC, the end excluded)",
        "bundle": f"{about['bundle']}, trained on what was before the period, seed {about['seed']}",
        "candidates": f"{settings['candidates']} a user; channels {settings['channel_depth']} deep",
        "bootstrap": f"{bootstrap['samples']} samples, {bootstrap['level']:.0%}, seed {bootstrap['seed']}",
        "baselines": "; ".join(
            f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in row.items())
            for name, row in about["baselines"].items()
        )
        + (" (quick: without the heavy ones)" if about["quick"] else ""),
        "versions": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "measured": f"{about['measured_at']}, in {about['took_s']:.0f} s",
    }
    cells = "".join(
        f'<tr><td>{escape(name)}</td><td class="words">{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _table(head: Cells, lines: Iterable[Cells], caption: str = "") -> str:
    """First cells are text, the others HTML; the row of ECRS stands out."""
    rows = []
    for first, *cells in lines:
        ours = ' class="ours"' if first == OURS or first.endswith(f"· {OURS}") else ""
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr{ours}><td>{escape(first)}</td>{body}</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    table = f"<table>{title}<thead><tr>{heads}</tr></thead>\n<tbody>{chr(10).join(rows)}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _interval(row: Content, sign: str = "") -> str:
    mean, low, high = (format(row[key], f"{sign}.4f") for key in ("mean", "low", "high"))
    return f"{mean} <small>({low} to {high})</small>"


def _day(ts: int) -> str:
    return f"{datetime.fromtimestamp(ts, UTC):%Y-%m-%d}"

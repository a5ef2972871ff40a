"""The full report of a bundle: measures everything, and writes the numbers and the recommendation lists.

OUT/
    report.html     the report as a page (`page`)
    report.json     the same numbers
    recs-all.csv    ECRS's lists of task `all`, which may hold items that the user bought before
    recs-new.csv    ECRS's lists of task `new`
"""

import csv
import json
import platform as machine
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.aggregates import MAX_PRODUCTS
from ecrs.domain.sizes import CANDIDATES
from ecrs.recall.blending import DEPTH
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluation import baselines, bootstrap, metrics, slices
from ecrs_models.evaluation.baselines import Recommender, SegmentPopularity, profile_segments
from ecrs_models.evaluation.bootstrap import Interval
from ecrs_models.evaluation.calibration import BINS, calibration, reliability
from ecrs_models.evaluation.evaluate import (
    ANSWERS,
    Evaluation,
    Evaluator,
    LoadedBundle,
    evaluator,
)
from ecrs_models.evaluation.funnel import STAGES, index_loss
from ecrs_models.evaluation.period import EvaluationPeriod
from ecrs_models.evaluation.results import OURS, POPULARITY, RankingResults
from ecrs_models.prepare import COMPLETE_JOURNEY
from ecrs_models.progress import Progress
from ecrs_models.snapshots.new_users import SESSION_LENGTH
from ecrs_models.synthetic.oracle import is_planted

SEGMENT, NEIGHBOURS, FACTORS = "popularity by profile", "item-kNN", "iALS"
LIBRARIES = ("numpy", "polars", "paddlepaddle", "faiss-cpu", "lightgbm", "implicit", "scipy", "matplotlib")
CAVEAT = {
    COMPLETE_JOURNEY: "The Complete Journey's purchases are real or realistically disguised.",
}


@dataclass(frozen=True)
class Report:
    """A finished report. `content` holds the JSON values of report.json, `evaluation` the lists."""

    content: dict[str, Any]
    evaluation: Evaluation
    gates: list[slices.Gate]


def report(bundle: Bundle, data: Dataset, progress: Progress | None = None, *, quick: bool = False) -> Report:
    """Compute the full report of a bundle. `quick` leaves out the baselines that need the extra `evaluate`.

    Answers that were computed at the bundle's export are reused. Raises DataError if `data` is not the
    bundle's data set, if no warm user buys anything after its training, or if the extra is not installed.
    """
    started = time.monotonic()
    progress = progress or Progress()
    loaded = LoadedBundle.of(bundle, data)
    segment = profile_segments(loaded.snapshot.tables.users[:, 1:])
    with evaluator(data, loaded.models, loaded.snapshot) as run:
        answers = run.saved(bundle.path / ANSWERS) or run.answers(progress)
        period, step = run.period, progress.step("baselines", 1)
        more: dict[str, Recommender] = {SEGMENT: SegmentPopularity(period, segment)}
        if not quick:
            more |= collaborative_baselines(period)
        evaluation = run.compare(answers, more)
        step.advance()
        cold = cold_users(run, loaded, segment, progress)
        vectors = run.user_vectors()
    gates = slices.gates(cold, POPULARITY)
    step = progress.step("intervals", 1)
    content = contents(loaded, evaluation, cold, vectors)
    step.advance()
    content["gates"] = [
        {"name": gate.name, "rival": gate.rival, "metric": slices.GATE_METRIC, "passed": gate.passed}
        | gate.difference.as_dict()
        for gate in gates
    ]
    took_s = round(time.monotonic() - started, 1)
    return Report({"about": about(loaded, evaluation, quick, took_s), **content}, evaluation, gates)


def contents(
    loaded: LoadedBundle, evaluation: Evaluation, cold: dict[str, RankingResults], user_vectors: np.ndarray
) -> dict[str, Any]:
    """Return all measurements of report.json, with their confidence intervals."""
    tasks, period = evaluation.tasks, evaluation.period
    history = {task: sliced(slices.by_history(results, period)) for task, results in tasks.items()}
    of_new_products = sliced(new_products(evaluation))
    return {
        "users": {task: len(results.truth) for task, results in tasks.items()},
        "tasks": {task: nested(results.intervals()) for task, results in tasks.items()},
        "better_than": {task: nested(results.against()) for task, results in tasks.items()},
        "share_of_the_best_possible": {task: as_dicts(results.reached()) for task, results in tasks.items()},
        "funnel": {task: funnel(values) for task, values in evaluation.funnel.items()},
        "index": index_loss(loaded.bundle, user_vectors),
        "slices": {"history": history, "cold": sliced(cold), "new_products": of_new_products},
        "beyond_accuracy": {task: beyond_accuracy(results, period) for task, results in tasks.items()},
        "calibration": calibration(evaluation.scored["all"]),
        "reliability": reliability(evaluation.scored["all"]),
    }


def collaborative_baselines(period: EvaluationPeriod) -> dict[str, Recommender]:
    """Fit the collaborative filtering baselines. Raises DataError if the extra `evaluate` is missing."""
    try:
        from ecrs_models.evaluation import collaborative
    except ImportError as error:
        raise DataError(
            f"the baselines need the extra `evaluate` ({error}); --quick leaves them out"
        ) from error
    return {NEIGHBOURS: collaborative.item_neighbours(period), FACTORS: collaborative.factors(period)}


def cold_users(
    run: Evaluator, loaded: LoadedBundle, segment: np.ndarray, progress: Progress
) -> dict[str, RankingResults]:
    """Return `slices.cold` with both popularity baselines.

    A further slice, `known profile alone`, holds the users of `profile alone` who have a profile at all.
    """
    period, tables = run.period, loaded.snapshot.tables
    rivals: dict[str, Recommender] = {
        POPULARITY: baselines.Popularity(period),
        SEGMENT: SegmentPopularity(period, segment),
    }
    cold = slices.cold(run, rivals, progress)
    known = (tables.users[:, 1:] != tables.unknown_user[1:]).any(axis=1)
    users = [user for user in period.truth if known[user]]
    if 0 < len(users) < len(period.truth):
        cold["known profile alone"] = cold["profile alone"].of(users)
    return cold


def new_products(evaluation: Evaluation) -> dict[str, RankingResults]:
    """Return the results by task with the ground truth restricted to new products.

    The lists are those of the whole catalogue. Tasks in which nobody bought a new product are left out.
    """
    items = slices.new_products(evaluation.period)
    restricted = {task: results.wanting(items) for task, results in evaluation.tasks.items()}
    return {f"task {task}": results for task, results in restricted.items() if results.truth}


def beyond_accuracy(results: RankingResults, period: EvaluationPeriod) -> dict[str, dict[str, Any]]:
    """Return recommender → coverage, a share of the catalogue, and novelty, in bits, of the first 20."""
    counts = np.bincount(period.fit.item, minlength=len(period.catalogue))
    share = np.maximum(counts, 1) / max(counts.sum(), 1)
    rows = {}
    for name, lists in results.lists.items():
        bits = np.array([metrics.novelty(items, share) for items in lists.values()])
        rows[name] = {
            "coverage": round(metrics.coverage(lists.values(), period.catalogue), 6),
            "novelty": bootstrap.intervals(bits[:, None])[0].as_dict(),
        }
    return rows


def funnel(values: np.ndarray) -> dict[str, dict[str, float]]:
    """Return stage → mean share with its interval. `values`, float64 (users, STAGES)."""
    return as_dicts(dict(zip(STAGES, bootstrap.intervals(values), strict=True)))


def sliced(parts: dict[str, RankingResults]) -> dict[str, Any]:
    """Return slice → number of users, intervals of all recommenders, and of ECRS minus each baseline."""
    return {
        name: {
            "users": len(part.truth),
            "recommenders": nested(part.intervals()),
            "better_than": nested(part.against()),
        }
        for name, part in parts.items()
    }


def nested(table: dict[str, dict[str, Interval]]) -> dict[str, dict[str, dict[str, float]]]:
    """Convert a table of intervals, such as recommender → metric → interval, to JSON values."""
    return {name: as_dicts(row) for name, row in table.items()}


def as_dicts(row: dict[str, Interval]) -> dict[str, dict[str, float]]:
    """Convert intervals by name to JSON values."""
    return {name: interval.as_dict() for name, interval in row.items()}


def about(loaded: LoadedBundle, evaluation: Evaluation, quick: bool, took_s: float) -> dict[str, Any]:
    """Return the origin of the numbers: bundle, data, period, settings and versions, to reproduce them."""
    data, manifest = loaded.data, loaded.bundle.manifest
    return {
        "bundle": loaded.bundle.version,
        "data": {key: data.about[key] for key in ("name", "source", "counts", "split")},
        "caveat": "Synthetic data." if is_planted(data) else CAVEAT.get(data.name, ""),
        "split": split_name(data, evaluation.period.start),
        "start": evaluation.period.start,
        "end": evaluation.end,
        "catalogue": int(evaluation.period.catalogue.sum()),
        "quick": quick,
        "seed": manifest.training["seed"],
        "training": manifest.training,
        "evaluation": {
            "candidates": CANDIDATES,
            "channel_depth": DEPTH,
            "aggregates_products": MAX_PRODUCTS,
            "session_products": SESSION_LENGTH,
            "new_product_days": slices.NEW_PRODUCT_DAYS,
            "calibration_bins": BINS,
            "bootstrap": {
                "samples": bootstrap.SAMPLES,
                "level": bootstrap.LEVEL,
                "seed": bootstrap.SEED,
            },
        },
        "baselines": settings_of_baselines(quick),
        "versions": versions(),
        "measured_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "took_s": took_s,
    }


def settings_of_baselines(quick: bool) -> dict[str, Any]:
    """Return baseline → its settings. `quick` leaves out the collaborative ones."""
    settings: dict[str, Any] = {
        POPULARITY: {"days": baselines.POPULARITY_DAYS},
        SEGMENT: {"days": baselines.POPULARITY_DAYS, "prior_purchases": baselines.SEGMENT_PRIOR},
    }
    if quick:
        return settings
    from ecrs_models.evaluation import collaborative

    return settings | {NEIGHBOURS: collaborative.NEIGHBOURS, FACTORS: collaborative.FACTORS}


def split_name(data: Dataset, start: int) -> str:
    """Return the name of the evaluation period that begins at `start`."""
    split = data.split
    return {split.valid_from: "tuning period", split.test_from: "test period"}.get(start, "custom period")


def versions() -> dict[str, str]:
    """Return the versions of Python, ECRS and those of LIBRARIES that are installed."""
    installed = {"python": machine.python_version()}
    for name in ("ecrs", *LIBRARIES):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def write(made: Report, data: Dataset, out: Path) -> Path:
    """Write the files of the report to `out`. Returns the path of report.html."""
    from ecrs_models.report.page import page

    out.mkdir(parents=True, exist_ok=True)
    for task, results in made.evaluation.tasks.items():
        write_list(results.lists[OURS], data, out / f"recs-{task}.csv")
    (out / "report.json").write_text(json.dumps(made.content, indent=1) + "\n", encoding="utf-8")
    path = out / "report.html"
    path.write_text(page(made.content), encoding="utf-8")
    return path


def write_lists(evaluation: Evaluation, data: Dataset, directory: Path) -> Iterable[Path]:
    """Write one CSV file per recommender and task. Yields their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    for task, results in evaluation.tasks.items():
        for name, lists in results.lists.items():
            path = directory / f"{task}-{'-'.join(re.findall(r'[a-z]+', name.lower()))}.csv"
            write_list(lists, data, path)
            yield path


def write_list(lists: dict[int, np.ndarray], data: Dataset, path: Path) -> None:
    """Write lists as CSV: `user_id,sku_id,rank`, rank 1 the best, with the ids of the data set."""
    ids, skus = data.users["user_id"].to_list(), data.items["sku"].to_list()
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user_id", "sku_id", "rank"))
        for user, items in lists.items():
            rows.writerows((ids[user], skus[item], rank) for rank, item in enumerate(items, 1))

"""The full report of a bundle: everything that is measured, as report.json has it, and the lists.

OUT/
    report.html     to read (`page`)
    report.json     the same numbers
    recs-all.csv    ECRS's lists, with what users had
    recs-new.csv    and without
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
    """`content` is JSON; `evaluation` has the lists."""

    content: dict[str, Any]
    evaluation: Evaluation
    gates: list[slices.Gate]


def report(bundle: Bundle, data: Dataset, shown: Progress | None = None, *, quick: bool = False) -> Report:
    """Measure everything about a bundle; `quick` leaves out the baselines that need the extra `evaluate`.

    The answers that the export of the bundle measured are used again. Raises DataError if `data` is not the
    bundle's, if nothing happens after its training, or if the extra is missing.
    """
    started = time.monotonic()
    shown = shown or Progress()
    loaded = LoadedBundle.of(bundle, data)
    segment = profile_segments(loaded.snapshot.tables.users[:, 1:])
    with evaluator(data, loaded.models, loaded.snapshot) as measured:
        answers = measured.saved(bundle.path / ANSWERS) or measured.answers(shown)
        period, step = measured.period, shown.step("baselines", 1)
        more: dict[str, Recommender] = {SEGMENT: SegmentPopularity(period, segment)}
        if not quick:
            more |= collaborative_baselines(period)
        found = measured.compare(answers, more)
        step.advance()
        cold = cold_users(measured, loaded, segment, shown)
        vectors = measured.user_vectors()
    gates = slices.gates(cold, POPULARITY)
    step = shown.step("intervals", 1)
    content = contents(loaded, found, cold, vectors)
    step.advance()
    content["gates"] = [
        {"name": gate.name, "rival": gate.rival, "metric": slices.GATE_METRIC, "passed": gate.passed}
        | gate.difference.as_dict()
        for gate in gates
    ]
    took_s = round(time.monotonic() - started, 1)
    return Report({"about": about(loaded, found, quick, took_s), **content}, found, gates)


def contents(
    opened: LoadedBundle, found: Evaluation, cold: dict[str, RankingResults], user_vectors: np.ndarray
) -> dict[str, Any]:
    """Everything that is measured, with its intervals."""
    tasks, period = found.tasks, found.period
    history = {task: sliced(slices.by_history(measured, period)) for task, measured in tasks.items()}
    return {
        "users": {task: len(measured.truth) for task, measured in tasks.items()},
        "tasks": {task: nested(measured.intervals()) for task, measured in tasks.items()},
        "better_than": {task: nested(measured.against()) for task, measured in tasks.items()},
        "share_of_the_best_possible": {
            task: as_dicts(measured.reached()) for task, measured in tasks.items()
        },
        "funnel": {task: funnel(values) for task, values in found.funnel.items()},
        "index": index_loss(opened.bundle, user_vectors),
        "slices": {"history": history, "cold": sliced(cold), "new_products": sliced(new_products(found))},
        "beyond_accuracy": {task: beyond_accuracy(measured, period) for task, measured in tasks.items()},
        "calibration": calibration(found.scored["all"]),
        "reliability": reliability(found.scored["all"]),
    }


def collaborative_baselines(period: EvaluationPeriod) -> dict[str, Recommender]:
    try:
        from ecrs_models.evaluation import collaborative
    except ImportError as error:
        raise DataError(
            f"the baselines need the extra `evaluate` ({error}); --quick does without them"
        ) from error
    return {NEIGHBOURS: collaborative.item_neighbours(period), FACTORS: collaborative.factors(period)}


def cold_users(
    measured: Evaluator, opened: LoadedBundle, segment: np.ndarray, shown: Progress
) -> dict[str, RankingResults]:
    """`slices.cold` beside both popularities; and once more, for users with a known profile only."""
    period, tables = measured.period, opened.snapshot.tables
    rivals: dict[str, Recommender] = {
        POPULARITY: baselines.Popularity(period),
        SEGMENT: SegmentPopularity(period, segment),
    }
    cold = slices.cold(measured, rivals, shown)
    known = (tables.users[:, 1:] != tables.unknown_user[1:]).any(axis=1)
    users = [user for user in period.truth if known[user]]
    if 0 < len(users) < len(period.truth):
        cold["known profile alone"] = cold["profile alone"].of(users)
    return cold


def new_products(found: Evaluation) -> dict[str, RankingResults]:
    """Per task, lists of the whole catalogue, truth of new products alone."""
    items = slices.new_products(found.period)
    wanting = {task: measured.wanting(items) for task, measured in found.tasks.items()}
    return {f"task {task}": measured for task, measured in wanting.items() if measured.truth}


def beyond_accuracy(measured: RankingResults, period: EvaluationPeriod) -> dict[str, dict[str, Any]]:
    """Recommender → coverage, a share of the catalogue, and novelty, bits, both of the first 20."""
    counts = np.bincount(period.fit.item, minlength=len(period.catalogue))
    share = np.maximum(counts, 1) / max(counts.sum(), 1)
    rows = {}
    for name, lists in measured.lists.items():
        bits = np.array([metrics.novelty(items, share) for items in lists.values()])
        rows[name] = {
            "coverage": round(metrics.coverage(lists.values(), period.catalogue), 6),
            "novelty": bootstrap.intervals(bits[:, None])[0].as_dict(),
        }
    return rows


def funnel(values: np.ndarray) -> dict[str, dict[str, float]]:
    return as_dicts(dict(zip(STAGES, bootstrap.intervals(values), strict=True)))


def sliced(parts: dict[str, RankingResults]) -> dict[str, Any]:
    """Slice → users, and recommender → metric → interval; by how much ECRS is better than each."""
    return {
        name: {
            "users": len(part.truth),
            "recommenders": nested(part.intervals()),
            "better_than": nested(part.against()),
        }
        for name, part in parts.items()
    }


def nested(table: dict[str, dict[str, Interval]]) -> dict[str, dict[str, dict[str, float]]]:
    return {name: as_dicts(row) for name, row in table.items()}


def as_dicts(row: dict[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: one.as_dict() for name, one in row.items()}


def about(opened: LoadedBundle, found: Evaluation, quick: bool, took_s: float) -> dict[str, Any]:
    """What the numbers are of, so that they can be had again."""
    data, manifest = opened.data, opened.bundle.manifest
    return {
        "bundle": opened.bundle.version,
        "data": {key: data.about[key] for key in ("name", "source", "counts", "split")},
        "caveat": "Generated data." if is_planted(data) else CAVEAT.get(data.name, ""),
        "split": split_name(data, found.period.start),
        "start": found.period.start,
        "end": found.end,
        "catalogue": int(found.period.catalogue.sum()),
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
    settings: dict[str, Any] = {
        POPULARITY: {"days": baselines.POPULARITY_DAYS},
        SEGMENT: {"days": baselines.POPULARITY_DAYS, "prior_purchases": baselines.SEGMENT_PRIOR},
    }
    if quick:
        return settings
    from ecrs_models.evaluation import collaborative

    return settings | {NEIGHBOURS: collaborative.NEIGHBOURS, FACTORS: collaborative.FACTORS}


def split_name(data: Dataset, start: int) -> str:
    """Which of the data set's periods begins there."""
    split = data.split
    return {split.valid_from: "tuning period", split.test_from: "test period"}.get(
        start, "a period of its own"
    )


def versions() -> dict[str, str]:
    found = {"python": machine.python_version()}
    for name in ("ecrs", *LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(made: Report, data: Dataset, out: Path) -> Path:
    """Write OUT; the path of report.html."""
    from ecrs_models.report.page import page

    out.mkdir(parents=True, exist_ok=True)
    for task, measured in made.evaluation.tasks.items():
        write_list(measured.lists[OURS], data, out / f"recs-{task}.csv")
    (out / "report.json").write_text(json.dumps(made.content, indent=1) + "\n", encoding="utf-8")
    path = out / "report.html"
    path.write_text(page(made.content), encoding="utf-8")
    return path


def write_lists(found: Evaluation, data: Dataset, directory: Path) -> Iterable[Path]:
    """A CSV file a recommender and task; the files."""
    directory.mkdir(parents=True, exist_ok=True)
    for task, measured in found.tasks.items():
        for name, lists in measured.lists.items():
            path = directory / f"{task}-{'-'.join(re.findall(r'[a-z]+', name.lower()))}.csv"
            write_list(lists, data, path)
            yield path


def write_list(lists: dict[int, np.ndarray], data: Dataset, path: Path) -> None:
    """`user_id,sku_id,rank`, rank 1 the best, with the data's own ids."""
    ids, skus = data.users["user_id"].to_list(), data.items["sku"].to_list()
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user_id", "sku_id", "rank"))
        for user, items in lists.items():
            rows.writerows((ids[user], skus[item], rank) for rank, item in enumerate(items, 1))

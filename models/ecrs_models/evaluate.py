"""How good recommendations are, on a period after training, beside simple baselines of the same run.

The protocol: a global time split; the whole catalogue of the fit period is ranked; truth is the
distinct items a user takes in the evaluation period; users who were there before (warm). Task
`all` counts repeats; `new` takes what the user had before out of lists and truth.
"""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.bundle import Bundle
from ecrs.ranking_features import CHANNELS, Quantiles
from ecrs.recall.vectors import read_vectors
from ecrs_models import metrics
from ecrs_models.dataset import DAY_S, Dataset, Log
from ecrs_models.errors import DataError
from ecrs_models.moments import Moment, Tables
from ecrs_models.oracle import Oracle, is_planted
from ecrs_models.platform import Answer, Models, Platform

TASKS = ("all", "new")
LIST_LENGTH = max(metrics.CUTOFFS)
POPULARITY_DAYS = 14


@dataclass(frozen=True)
class Period:
    """What was before the evaluation and what came in it."""

    seen: Log  # everything before
    fit: Log  # the purchases of it
    truth: dict[int, np.ndarray]  # per warm user, the distinct items taken in the period
    catalogue: np.ndarray  # bool, shape (items,): bought at least once before
    start: int

    @classmethod
    def of(cls, data: Dataset, start: int, end: int) -> "Period":
        seen = data.log.before(start)
        fit, later = seen.purchases(), data.log.purchases().between(start, end)
        warm = np.flatnonzero((np.diff(fit.start) > 0) & (np.diff(later.start) > 0))
        truth = {int(user): np.unique(later.item[later.start[user] : later.start[user + 1]]) for user in warm}
        catalogue = np.zeros(data.items.height, dtype=bool)
        catalogue[fit.item] = True
        return cls(seen, fit, truth, catalogue, start)

    def truth_of(self, task: str) -> dict[int, np.ndarray]:
        """Per user, what to find; users for whom there is nothing are left out."""
        if task == "all":
            return self.truth
        new = {user: np.setdiff1d(items, self.bought(user)) for user, items in self.truth.items()}
        return {user: items for user, items in new.items() if len(items)}

    def bought(self, user: int) -> np.ndarray:
        """The items of the user's purchases before the period, oldest first, with repeats."""
        return self.fit.item[self.fit.start[user] : self.fit.start[user + 1]]


@dataclass(frozen=True)
class Report:
    """Per task and recommender, the metrics; per task, the funnel: what share of the truth each channel and
    the merged candidates contain; `lists` (not kept in a bundle) the items recommended."""

    start: int
    end: int
    users: dict[str, int]
    tasks: dict[str, dict[str, dict[str, float]]]
    funnel: dict[str, dict[str, float]]
    calibration: dict[str, float]
    lists: dict[str, dict[str, dict[int, np.ndarray]]] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lists"}


Recommender = Callable[[int, bool], np.ndarray]
"""User number and whether what the user had is left out → item numbers, best first."""

OURS = "ECRS"


def evaluate(
    data: Dataset,
    models: Models,
    moment: Moment,
    *,
    end: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure `models` and the baselines on the period that begins at the moment.

    Of generated data, also the best possible ranking. DataError if nothing happens in it.
    """
    start = moment.now
    end = end or data.split.end_after(start)
    period = Period.of(data, start, end)
    if not period.truth:
        raise DataError(f"{data.path}: no user who was there before buys anything in [{start}, {end})")
    platform = Platform(moment, models, np.array(sorted(period.truth)))
    baselines: dict[str, Recommender] = {
        "popularity": Popularity(period),
        "history, then popularity": HistoryThenPopularity(period),
    }
    if is_planted(data):
        baselines["best possible"] = Oracle(data, period.bought, LIST_LENGTH)
    report = Report(start, end, {}, {}, {}, {}, {})
    for task in TASKS:
        progress(task)
        truth = period.truth_of(task)
        new = task == "new"
        answers = {user: platform.answer(user, new_only=new) for user in truth}
        lists = {
            name: {user: recommend(user, new) for user in truth} for name, recommend in baselines.items()
        }
        lists["merged recall"] = {user: answer.proposals.item for user, answer in answers.items()}
        lists[OURS] = {user: answer.ranked for user, answer in answers.items()}
        report.users[task] = len(truth)
        report.lists[task] = {
            name: {user: items[:LIST_LENGTH] for user, items in of.items()} for name, of in lists.items()
        }
        report.tasks[task] = {
            name: metrics.mean([metrics.measure(of[user], truth[user]) for user in truth])
            for name, of in report.lists[task].items()
        }
        report.funnel[task] = funnel(answers, truth)
        if task == "all":
            report.calibration.update(calibration(answers, truth))
    return report


def funnel(answers: dict[int, Answer], truth: dict[int, np.ndarray]) -> dict[str, float]:
    """The mean share of a user's truth among each channel's proposals and among all candidates."""
    shares: dict[str, list[float]] = {name: [] for name in (*CHANNELS, "candidates")}
    for user, taken in truth.items():
        proposals = answers[user].proposals
        right = np.isin(proposals.item, taken)
        for channel, name in enumerate(CHANNELS):
            shares[name].append(float(right[~np.isnan(proposals.positions[:, channel])].sum() / len(taken)))
        shares["candidates"].append(float(right.sum() / len(taken)))
    return {name: float(np.mean(values)) for name, values in shares.items()}


def calibration(answers: dict[int, Answer], truth: dict[int, np.ndarray], bins: int = 20) -> dict[str, float]:
    """Of the scores as probabilities of being taken: normalised entropy, the cross-entropy over that of
    always saying the mean (He et al., ADKDD 2014); expected calibration error over `bins` of equal size;
    and the sum of the scores over that of what was taken."""
    scores = np.concatenate([answers[user].scores for user in truth]).astype(np.float64)
    taken = np.concatenate([np.isin(answers[user].proposals.item, truth[user]) for user in truth])
    rate = np.clip(taken.mean(), 1e-9, 1 - 1e-9)
    clipped = np.clip(scores, 1e-9, 1 - 1e-9)
    entropy = -np.mean(np.where(taken, np.log(clipped), np.log1p(-clipped)))
    base = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    parts = np.array_split(np.argsort(scores), bins)
    gap = sum(abs(scores[part].mean() - taken[part].mean()) * len(part) for part in parts if len(part))
    return {
        "normalised_entropy": float(entropy / base),
        "expected_calibration_error": float(gap / len(scores)),
        "predicted_over_taken": float(scores.sum() / max(taken.sum(), 1)),
    }


def evaluate_bundle(
    bundle: Bundle,
    data: Dataset,
    *,
    start: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure a bundle's own models and vectors on the period after its training, or from `start` on.

    DataError if `data` is not the data set of the bundle.
    """
    from ecrs_models.inference import SavedModel  # paddle takes a second to import
    from ecrs_models.training import Settings

    skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))
    if skus != data.items["sku"].to_list():
        raise DataError(f"{data.path} has other products than {bundle.path}")
    settings = Settings.read(bundle.manifest["training"])
    tables = Tables.of(data, bundle.encoder)
    models = Models(
        SavedModel(bundle.path / "user_tower"),
        vectors,
        SavedModel(bundle.path / "ranker"),
        Quantiles.load(bundle.path / "quantiles.json"),
        np.load(bundle.path / "recall" / "curves.npy"),
    )
    moment = Moment.of(data.log, start or settings.until, tables, settings.tables)
    return evaluate(data, models, moment, progress=progress)


class Popularity:
    """What was bought most in the last POPULARITY_DAYS, then in all the time before."""

    def __init__(self, period: Period) -> None:
        size = len(period.catalogue)
        recent = period.fit.between(period.start - POPULARITY_DAYS * DAY_S, period.start)
        counts = np.bincount(recent.item, minlength=size), np.bincount(period.fit.item, minlength=size)
        order = np.lexsort((-counts[1], -counts[0]))
        self._order = order[period.catalogue[order]]
        self._bought = period.bought

    def __call__(self, user: int, new: bool) -> np.ndarray:
        return without(self._order, self._bought(user)) if new else self._order


class HistoryThenPopularity:
    """The user's own items by how often they were bought, the newer first among equals; then popularity."""

    def __init__(self, period: Period) -> None:
        self._bought, self._popularity = period.bought, Popularity(period)

    def __call__(self, user: int, new: bool) -> np.ndarray:
        if new:
            return self._popularity(user, new)
        items, newest, counts = np.unique(self._bought(user)[::-1], return_index=True, return_counts=True)
        own = items[np.lexsort((newest, -counts))]
        return np.concatenate([own, without(self._popularity(user, False), own)])


def without(items: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """At most LIST_LENGTH of `items` that are not among `excluded`, in their order."""
    head = items[: LIST_LENGTH + len(excluded)]
    return head[~np.isin(head, excluded)][:LIST_LENGTH]


def write_lists(report: Report, data: Dataset, directory: Path) -> list[Path]:
    """`user_id,sku_id,rank` a recommender and task, with the data's own ids; the files."""
    directory.mkdir(parents=True, exist_ok=True)
    ids, skus = data.users["user_id"].to_list(), data.items["sku"].to_list()
    paths = []
    for task, lists in report.lists.items():
        for name, items in lists.items():
            path = directory / f"{task}-{'-'.join(re.findall(r'[a-z]+', name.lower()))}.csv"
            with open(path, "w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(("user_id", "sku_id", "rank"))
                for user, numbers in items.items():
                    rows.writerows((ids[user], skus[item], rank) for rank, item in enumerate(numbers, 1))
            paths.append(path)
    return paths


def best_possible(data_dir: Path, k: int = 20, task: str = "all") -> float:
    """The recall@k that the best ranking reaches on the test period of a generated data set.

    Mean over warm users. Recommenders may only be better by luck. DataError if the data set is not
    generated or nobody buys in the period.
    """
    data = Dataset.load(data_dir)
    period = Period.of(data, data.split.test_from, data.split.until)
    oracle, new = Oracle(data, period.bought, k), task == "new"
    rows = []
    for user, wanted in period.truth_of(task).items():
        rows.append(metrics.recall(np.isin(oracle(user, new), wanted), len(wanted), k))
    if not rows:
        raise DataError(f"{data_dir}: nobody who was there before buys anything in the test period")
    return float(np.mean(rows))

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
from ecrs.features import PADDING, crosses
from ecrs.recall.vectors import read_vectors
from ecrs_models import metrics
from ecrs_models.dataset import DAY_S, Dataset, Log
from ecrs_models.errors import DataError
from ecrs_models.oracle import Oracle, is_planted

TASKS = ("all", "new")
LIST_LENGTH = max(metrics.CUTOFFS)
CANDIDATES = 500
"""How many of the nearest items the ranker sees."""
POPULARITY_DAYS = 14

Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Models:
    """What recommends: ids in, numbers out. `vectors`, float32 (items, dim), `users` and `items` are
    the encoded tables of the data set."""

    user_tower: Score
    vectors: np.ndarray
    ranker: Score
    users: np.ndarray
    items: np.ndarray


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

    def bought(self, user: int) -> np.ndarray:
        """The items of the user's purchases before the period, oldest first, with repeats."""
        return self.fit.item[self.fit.start[user] : self.fit.start[user + 1]]


@dataclass(frozen=True)
class Report:
    """Per task and recommender, the metrics; `lists` (not kept in a bundle) the items recommended."""

    start: int
    end: int
    users: dict[str, int]
    tasks: dict[str, dict[str, dict[str, float]]]
    lists: dict[str, dict[str, dict[int, np.ndarray]]] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lists"}


Recommender = Callable[[int, bool], np.ndarray]
"""User number and whether what the user had is left out → item numbers, best first."""


def evaluate(
    data: Dataset, models: Models, start: int, *, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure `models` and the baselines on the period that begins at `start`.

    Of generated data, also the best possible ranking. DataError if nothing happens in it.
    """
    end = data.split.end_after(start)
    period = Period.of(data, start, end)
    if not period.truth:
        raise DataError(f"{data.path}: no user who was there before buys anything in [{start}, {end})")
    nearest = Nearest(models, period)
    recommenders: dict[str, Recommender] = {
        "popularity": Popularity(period),
        "history, then popularity": HistoryThenPopularity(period),
        "two-tower": nearest,
        "two-tower + DeepFM": Ranked(models, period, nearest),
    }
    if is_planted(data):
        recommenders["best possible"] = Oracle(data, period.bought, LIST_LENGTH)
    users: dict[str, int] = {}
    tasks: dict[str, dict[str, dict[str, float]]] = {}
    lists: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for task in TASKS:
        new = task == "new"
        truth = {
            user: np.setdiff1d(items, period.bought(user)) if new else items
            for user, items in period.truth.items()
        }
        truth = {user: items for user, items in truth.items() if len(items)}
        users[task], tasks[task], lists[task] = len(truth), {}, {}
        for name, recommend in recommenders.items():
            progress(f"{task}: {name}")
            lists[task][name] = {user: recommend(user, new)[:LIST_LENGTH] for user in truth}
            rows = [metrics.measure(lists[task][name][user], items) for user, items in truth.items()]
            tasks[task][name] = metrics.mean(rows)
    return Report(start, end, users, tasks, lists)


def evaluate_bundle(
    bundle: Bundle, data: Dataset, *, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure a bundle's own models and vectors on the period after its training.

    DataError if `data` is not the data set of the bundle.
    """
    from ecrs_models.inference import SavedModel  # paddle takes a second to import

    skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))
    if skus != data.items["sku"].to_list():
        raise DataError(f"{data.path} has other products than {bundle.path}")
    models = Models(
        SavedModel(bundle.path / "user_tower"),
        vectors,
        SavedModel(bundle.path / "ranker"),
        bundle.encoder.user_table(data.users.to_dict()),
        bundle.encoder.item_table(data.items.to_dict()),
    )
    return evaluate(data, models, bundle.manifest["training"]["until"], progress=progress)


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


class Nearest:
    """The first stage: the CANDIDATES nearest items of the catalogue to the user's vector, exactly."""

    def __init__(self, models: Models, period: Period) -> None:
        self._models, self._period = models, period
        self._allowed = np.where(period.catalogue, np.float32(0), np.float32(-np.inf))
        self._sku_ids = np.append(models.items[:, 0], PADDING)  # ABSENT, -1, finds the PADDING
        self._found: dict[tuple[int, bool], np.ndarray] = {}

    def __call__(self, user: int, new: bool) -> np.ndarray:
        if (user, new) not in self._found:
            self._found[user, new] = self._search(user, new)
        return self._found[user, new]

    def _search(self, user: int, new: bool) -> np.ndarray:
        history = self._period.seen.latest(np.array([user]))
        ids = np.concatenate([self._models.users[[user]], self._sku_ids[history]], axis=1)
        near = self._models.vectors @ self._models.user_tower(ids)[0] + self._allowed
        if new:
            near[self._period.bought(user)] = -np.inf
        count = min(CANDIDATES, int(np.isfinite(near).sum()))
        found = np.argpartition(-near, count - 1)[:count]
        return found[np.argsort(-near[found], kind="stable")]


class Ranked:
    """Both stages of the platform: the nearest items, ranked by DeepFM."""

    def __init__(self, models: Models, period: Period, nearest: Nearest) -> None:
        self._models, self._period, self._nearest = models, period, nearest

    def __call__(self, user: int, new: bool) -> np.ndarray:
        found = self._nearest(user, new)
        profile = np.repeat(self._models.users[[user]], len(found), axis=0)
        history = self._period.seen.latest(np.array([user]))
        ids = np.concatenate([profile, self._models.items[found], crosses(history, found)], axis=1)
        return found[np.argsort(-self._models.ranker(ids)[:, 0], kind="stable")]


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
    for user, truth in period.truth.items():
        wanted = np.setdiff1d(truth, period.bought(user)) if new else truth
        if len(wanted):
            rows.append(metrics.recall(np.isin(oracle(user, new), wanted), len(wanted), k))
    if not rows:
        raise DataError(f"{data_dir}: nobody who was there before buys anything in the test period")
    return float(np.mean(rows))

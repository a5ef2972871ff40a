"""Evaluates recommendations on a period after training, beside simple baselines of the same run.

Protocol: global time split; the whole catalogue of the fit period is ranked; the ground truth is the distinct
items that a user buys in the evaluation period; users are those with purchases before it (warm). Task `all`
counts repeat purchases; task `new` leaves items that the user bought before out of lists and ground truth.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.bundle import Bundle
from ecrs.features.quantiles import Quantiles
from ecrs.storage.vectors import read_vectors
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluation import metrics
from ecrs_models.evaluation.baselines import LIST_LENGTH, HistoryThenPopularity, Popularity, Recommender
from ecrs_models.evaluation.calibration import ScoredCandidates, calibration
from ecrs_models.evaluation.funnel import STAGES
from ecrs_models.evaluation.offline_platform import BundleModels
from ecrs_models.evaluation.period import TASKS, EvaluationPeriod
from ecrs_models.evaluation.results import BEST_POSSIBLE, HISTORY, OURS, POPULARITY, RETRIEVAL, RankingResults
from ecrs_models.evaluation.worker import Answers, EvaluationWorker
from ecrs_models.parallel import Workers, workers
from ecrs_models.progress import Progress, Step
from ecrs_models.snapshots.snapshot import EncodedTables, Snapshot
from ecrs_models.synthetic.oracle import Oracle, is_planted

ANSWERS = "answers.npz"
"""File of a bundle: the platform's answers on the period after training, as measured at export."""
ARRAYS = ("retrieval", "ranked", "funnel", "scores", "label")
CHUNK = 250
"""Users that a worker answers for in one call."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluated period, by task.

    `tasks`, the recommenders' lists beside the ground truth; `funnel`, float64 (users, STAGES); `scored`, the
    candidates with the ranker's scores.
    """

    period: EvaluationPeriod
    end: int
    tasks: dict[str, RankingResults]
    funnel: dict[str, np.ndarray]
    scored: dict[str, ScoredCandidates]

    def as_dict(self) -> dict[str, Any]:
        """The means, as a bundle's metrics.json has them."""
        return {
            "start": self.period.start,
            "end": self.end,
            "users": {task: len(results.truth) for task, results in self.tasks.items()},
            "tasks": {task: results.means() for task, results in self.tasks.items()},
            "funnel": {
                task: dict(zip(STAGES, values.mean(axis=0).tolist(), strict=True))
                for task, values in self.funnel.items()
            },
            "calibration": calibration(self.scored["all"]),
        }


class Evaluator:
    """Evaluates a bundle's models on one period. Made by `evaluator`."""

    def __init__(self, data: Dataset, period: EvaluationPeriod, end: int, helpers: Workers) -> None:
        self._data, self.period, self._end, self._helpers = data, period, end, helpers

    def answers(self, shown: Progress) -> dict[str, Answers]:
        """The platform's answers to the period's users, by task."""
        answers = {}
        for task in TASKS:
            users = self._users(task)
            parts = self._each(shown.step(f"task {task}", len(users)), "answers", users, task)
            answers[task] = Answers.concatenate(parts)
        return answers

    def compare(
        self, answers: Mapping[str, Answers], more: Mapping[str, Recommender] | None = None
    ) -> Evaluation:
        """The answers beside the lists of the simple baselines and of `more` recommenders.

        On synthetic data, also beside the best possible ranking.
        """
        found = Evaluation(self.period, self._end, {}, {}, {})
        for task, given in answers.items():
            truth = self.period.truth_of(task)
            lists = {
                name: {user: recommend(user, task == "new")[:LIST_LENGTH] for user in truth}
                for name, recommend in self._baselines(more or {}).items()
            }
            lists[RETRIEVAL] = dict(zip(truth, given.retrieval, strict=True))
            lists[OURS] = dict(zip(truth, given.ranked, strict=True))
            found.tasks[task] = RankingResults(truth, lists)
            found.funnel[task] = given.funnel
            found.scored[task] = ScoredCandidates(given.scores, given.label)
        return found

    def lists_as_new(self, shown: Step, *, session: bool, profile: bool) -> dict[str, dict[int, np.ndarray]]:
        """Lists before and after ranking if all users of the period were new."""
        users = np.array(list(self.period.truth), dtype=np.int64)
        parts = self._each(shown, "lists_as_new", users, session, profile)
        before, after = (chain.from_iterable(lists) for lists in zip(*parts, strict=True))
        return {
            RETRIEVAL: dict(zip(self.period.truth, before, strict=True)),
            OURS: dict(zip(self.period.truth, after, strict=True)),
        }

    def user_vectors(self) -> np.ndarray:
        """User tower outputs of the period's users, float32 (users, DIM)."""
        return self._helpers.call(0, "user_vectors", np.array(list(self.period.truth))).result()

    def save(self, answers: Mapping[str, Answers], path: Path) -> None:
        """Write answers to a file, for `saved`."""
        arrays: dict[str, Any] = {"period": self._bounds()}
        arrays |= {
            f"{task}.{name}": array
            for task, given in answers.items()
            for name, array in (given.as_arrays() | {"users": self._users(task)}).items()
        }
        np.savez(path, **arrays)

    def saved(self, path: Path) -> dict[str, Answers] | None:
        """Answers that `save` wrote; None if there is no file, or it is of another period or other users."""
        if not path.exists():
            return None
        arrays = np.load(path)
        same = all(np.array_equal(arrays[f"{task}.users"], self._users(task)) for task in TASKS)
        if not same or not np.array_equal(arrays["period"], self._bounds()):
            return None
        return {
            task: Answers.of_arrays({name: arrays[f"{task}.{name}"] for name in ARRAYS}) for task in TASKS
        }

    def _bounds(self) -> np.ndarray:
        return np.array([self.period.start, self._end])

    def _users(self, task: str) -> np.ndarray:
        return np.array(list(self.period.truth_of(task)), dtype=np.int64)

    def _baselines(self, more: Mapping[str, Recommender]) -> dict[str, Recommender]:
        baselines: dict[str, Recommender] = {
            POPULARITY: Popularity(self.period),
            HISTORY: HistoryThenPopularity(self.period),
            **more,
        }
        if is_planted(self._data):
            baselines[BEST_POSSIBLE] = Oracle(self._data, self.period.bought, LIST_LENGTH)
        return baselines

    def _each(self, shown: Step, method: str, users: np.ndarray, *arguments: Any) -> list[Any]:
        """Call a method of the workers for all users, in chunks; the results in order."""
        chunks = np.array_split(users, max(len(users) // CHUNK, 1))
        futures = [
            self._helpers.call(number, method, chunk, *arguments) for number, chunk in enumerate(chunks)
        ]
        results = []
        for chunk, future in zip(chunks, futures, strict=True):
            results.append(future.result())
            shown.advance(len(chunk))
        return results


@contextmanager
def evaluator(
    data: Dataset, models: BundleModels, snapshot: Snapshot, end: int | None = None
) -> Iterator[Evaluator]:
    """An evaluator of the period that begins at the snapshot's cutoff, its workers running.

    Raises DataError if no user who was there before buys anything in the period.
    """
    start = snapshot.cutoff
    end = end or data.split.end_after(start)
    period = EvaluationPeriod.of(data, start, end)
    if not period.truth:
        raise DataError(f"{data.path}: no user who was there before buys anything in [{start}, {end})")
    with workers(len(data.log), EvaluationWorker, snapshot, models, period) as helpers:
        yield Evaluator(data, period, end, helpers)


def evaluate(
    data: Dataset, models: BundleModels, snapshot: Snapshot, shown: Progress | None = None
) -> Evaluation:
    """Evaluate models and simple baselines on the period that begins at the snapshot. Raises DataError."""
    with evaluator(data, models, snapshot) as measured:
        return measured.compare(measured.answers(shown or Progress()))


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle's own models and vectors, at a snapshot."""

    bundle: Bundle
    data: Dataset
    models: BundleModels
    snapshot: Snapshot

    @classmethod
    def of(cls, bundle: Bundle, data: Dataset, start: int | None = None) -> "LoadedBundle":
        """At the snapshot where its training ended, or at `start`.

        DataError if `data` is not the data set of the bundle.
        """
        from ecrs_models.evaluation.saved_model import SavedModel  # paddle takes a second to import
        from ecrs_models.training.settings import TrainingSettings

        skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))
        if skus != data.items["sku"].to_list():
            raise DataError(f"{data.path} has other products than {bundle.path}")
        settings = TrainingSettings.read(bundle.manifest.training)
        models = BundleModels(
            SavedModel(bundle.path / "user_tower"),
            vectors,
            SavedModel(bundle.path / "ranker"),
            Quantiles.load(bundle.path / "quantiles.json"),
            np.load(bundle.path / "recall" / "curves.npy"),
        )
        tables = EncodedTables.of(data, bundle.encoder)
        snapshot = Snapshot.of(data.log, start or settings.until, tables, settings.tables)
        return cls(bundle, data, models, snapshot)


def best_possible(data_dir: Path, k: int = 20, task: str = "all") -> float:
    """The recall@k that the best ranking reaches on the test period of a generated data set.

    Mean over warm users. Recommenders may only be better by luck. DataError if the data set is not
    generated or nobody buys in the period.
    """
    data = Dataset.load(data_dir)
    period = EvaluationPeriod.of(data, data.split.test_from, data.split.until)
    oracle, new = Oracle(data, period.bought, k), task == "new"
    rows = []
    for user, wanted in period.truth_of(task).items():
        rows.append(metrics.recall(np.isin(oracle(user, new), wanted), len(wanted), k))
    if not rows:
        raise DataError(f"{data_dir}: nobody who was there before buys anything in the test period")
    return float(np.mean(rows))

"""Evaluates a bundle on a period after training and compares it with simple baselines.

Protocol: global time split; the whole catalogue of the fit period is ranked; the ground truth is the
distinct items that a user buys in the evaluation period; users are those with purchases before it (warm
users). Task `all` counts repeat purchases; task `new` removes items that the user bought before from lists
and ground truth.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.bundle import Bundle, BundleError
from ecrs.bundle.arrays import check_arrays, read_arrays
from ecrs.features.catalogue import NO_ID
from ecrs.recall.tables import load_curves
from ecrs.serving.expected_models import load_signature
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
"""File of a bundle with the platform's answers on the period after training, computed at export."""
ARRAYS = ("retrieval", "ranked", "funnel", "scores", "label")
_NOTHING = np.zeros(0)
CHUNK = 250
"""Number of users per call of a worker."""


@dataclass(frozen=True)
class Evaluation:
    """The results of a period; the dictionaries are by task.

    `tasks`: the lists of all recommenders and the ground truth; `funnel`: float64 (users, STAGES); `scored`:
    the candidates with the ranker's scores and labels. `end` is the end of the period, Unix seconds.
    """

    period: EvaluationPeriod
    end: int
    tasks: dict[str, RankingResults]
    funnel: dict[str, np.ndarray]
    scored: dict[str, ScoredCandidates]

    def as_dict(self) -> dict[str, Any]:
        """Return the means over users, in the format of a bundle's metrics.json."""
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
    """Evaluates a bundle's models on one period. Use `evaluator` to create one with its workers."""

    def __init__(self, data: Dataset, period: EvaluationPeriod, end: int, helpers: Workers) -> None:
        self._data, self.period, self._end, self._helpers = data, period, end, helpers

    def answers(self, progress: Progress) -> dict[str, Answers]:
        """Compute the platform's answers for the period's users, by task."""
        answers = {}
        for task in TASKS:
            users = self._users(task)
            parts = self._each(progress.step(f"task {task}", len(users)), "answers", users, task)
            answers[task] = Answers.concatenate(parts)
        return answers

    def compare(
        self, answers: Mapping[str, Answers], more: Mapping[str, Recommender] | None = None
    ) -> Evaluation:
        """Compare the answers with the simple baselines and the recommenders in `more`.

        On synthetic data, the best possible ranking is included.
        """
        evaluation = Evaluation(self.period, self._end, {}, {}, {})
        for task, ours in answers.items():
            truth = self.period.truth_of(task)
            lists = {
                name: {user: recommend(user, task == "new")[:LIST_LENGTH] for user in truth}
                for name, recommend in self._baselines(more or {}).items()
            }
            lists[RETRIEVAL] = dict(zip(truth, ours.retrieval, strict=True))
            lists[OURS] = dict(zip(truth, ours.ranked, strict=True))
            evaluation.tasks[task] = RankingResults(truth, lists)
            evaluation.funnel[task] = ours.funnel
            evaluation.scored[task] = ScoredCandidates(ours.scores, ours.label)
        return evaluation

    def lists_as_new(self, step: Step, *, session: bool, profile: bool) -> dict[str, dict[int, np.ndarray]]:
        """Return the lists before and after ranking, with every user of the period treated as new.

        `session` and `profile` select what is known about them.
        """
        users = np.array(list(self.period.truth), dtype=np.int64)
        parts = self._each(step, "lists_as_new", users, session, profile)
        before, after = (chain.from_iterable(lists) for lists in zip(*parts, strict=True))
        return {
            RETRIEVAL: dict(zip(self.period.truth, before, strict=True)),
            OURS: dict(zip(self.period.truth, after, strict=True)),
        }

    def user_vectors(self) -> np.ndarray:
        """Return the user tower outputs of the period's users, float32 (users, DIM)."""
        return self._helpers.call(0, "user_vectors", np.array(list(self.period.truth))).result()

    def save(self, answers: Mapping[str, Answers], path: Path) -> None:
        """Write answers to a file that `saved` reads."""
        arrays: dict[str, Any] = {"period": self._bounds(), "data": self._fingerprint()}
        arrays |= {
            f"{task}.{name}": array
            for task, ours in answers.items()
            for name, array in ours.as_arrays().items()
        }
        np.savez(path, **arrays)

    def saved(self, path: Path) -> dict[str, Answers] | None:
        """Read answers that `save` wrote.

        Returns None if the file does not exist, or was written for a different period or data set. Raises
        BundleError if its arrays are not those of answers.
        """
        if not path.exists():
            return None
        arrays = read_arrays(path)
        written_for = {"period": self._bounds(), "data": self._fingerprint()}
        if not all(np.array_equal(arrays.pop(name, _NOTHING), value) for name, value in written_for.items()):
            return None
        tasks = {task: {name: arrays.pop(f"{task}.{name}", _NOTHING) for name in ARRAYS} for task in TASKS}
        if arrays:
            raise BundleError(f"{path}: {min(arrays)!r} is not expected")
        for task, found in tasks.items():
            check_arrays(path, found, Answers.shapes(len(self._users(task)), len(found["scores"])))
            for name in ("retrieval", "ranked"):
                if not NO_ID <= found[name].min() <= found[name].max() < self._data.items.height:
                    raise BundleError(f"{path}: {task}.{name}: a row that the products do not have")
        return {task: Answers.of_arrays(found) for task, found in tasks.items()}

    def _fingerprint(self) -> np.ndarray:
        return np.frombuffer(bytes.fromhex(self._data.fingerprint()), dtype=np.uint8)

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

    def _each(self, step: Step, method: str, users: np.ndarray, *arguments: Any) -> list[Any]:
        """Call a method of the workers for chunks of the users. Returns the results in order."""
        chunks = np.array_split(users, max(len(users) // CHUNK, 1))
        futures = [
            self._helpers.call(number, method, chunk, *arguments) for number, chunk in enumerate(chunks)
        ]
        results = []
        for chunk, future in zip(chunks, futures, strict=True):
            results.append(future.result())
            step.advance(len(chunk))
        return results


@contextmanager
def evaluator(
    data: Dataset, models: BundleModels, snapshot: Snapshot, end: int | None = None
) -> Iterator[Evaluator]:
    """Yield an evaluator, with running workers, for the period that begins at the snapshot's cutoff.

    `end` defaults to the end of the data set's period. Raises DataError if no warm user buys anything in the
    period.
    """
    start = snapshot.cutoff
    end = end or data.split.end_after(start)
    period = EvaluationPeriod.of(data, start, end)
    if not period.truth:
        raise DataError(f"{data.path}: no user with earlier purchases buys anything in [{start}, {end})")
    with workers(len(data.log), EvaluationWorker, snapshot, models, period) as helpers:
        yield Evaluator(data, period, end, helpers)


def evaluate(
    data: Dataset, models: BundleModels, snapshot: Snapshot, progress: Progress | None = None
) -> Evaluation:
    """Evaluate models and simple baselines on the period that begins at the snapshot's cutoff.

    Raises DataError if no warm user buys anything in that period.
    """
    with evaluator(data, models, snapshot) as run:
        return run.compare(run.answers(progress or Progress()))


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle's models and vectors, with the snapshot to evaluate them at."""

    bundle: Bundle
    data: Dataset
    models: BundleModels
    snapshot: Snapshot

    @classmethod
    def of(cls, bundle: Bundle, data: Dataset, start: int | None = None) -> "LoadedBundle":
        """Load a bundle, with the snapshot at the end of its training or at `start`, Unix seconds.

        Raises DataError if the products of `data` are not those of the bundle, and BundleError if a file of
        the bundle is malformed.
        """
        from ecrs_models.evaluation.saved_model import SavedModel  # paddle takes a second to import
        from ecrs_models.training.settings import TrainingSettings

        lines, count = bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt")
        skus, vectors = read_vectors(lines, count, bundle.manifest.dim)
        if skus != data.items["sku"].to_list():
            raise DataError(f"the products of {data.path} are not those of {bundle.path}")
        settings = TrainingSettings.read(bundle.manifest.training)
        for name in ("user_tower", "ranker"):
            load_signature(bundle, name)
        models = BundleModels(
            SavedModel(bundle.path / "user_tower"),
            vectors,
            SavedModel(bundle.path / "ranker"),
            bundle.quantiles,
            load_curves(bundle),
        )
        tables = EncodedTables.of(data, bundle.encoder)
        snapshot = Snapshot.of(data.log, start or settings.until, tables, settings.tables)
        return cls(bundle, data, models, snapshot)


def best_possible(data_dir: Path, k: int = 20, task: str = "all") -> float:
    """Return the recall@k of the oracle on the test period of a synthetic data set, the mean over warm users.

    No recommender has a higher expected value; on one realisation of the data it can be higher by chance.
    Raises DataError if the data set is not synthetic, or no warm user buys anything in the period.
    """
    data = Dataset.load(data_dir)
    period = EvaluationPeriod.of(data, data.split.test_from, data.split.until)
    oracle, new = Oracle(data, period.bought, k), task == "new"
    recalls = []
    for user, relevant in period.truth_of(task).items():
        recalls.append(metrics.recall(np.isin(oracle(user, new), relevant), len(relevant), k))
    if not recalls:
        raise DataError(f"{data_dir}: no user with earlier purchases buys anything in the test period")
    return float(np.mean(recalls))

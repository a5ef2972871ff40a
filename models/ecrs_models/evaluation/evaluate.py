"""How good recommendations are, on a period after training, beside simple baselines of the same run.

The protocol: a global time split; the whole catalogue of the fit period is ranked; truth is the
distinct items a user takes in the evaluation period; users who were there before (warm). Task
`all` counts repeats; `new` takes what the user had before out of lists and truth.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
from ecrs_models.evaluation.funnel import STAGES, stages
from ecrs_models.evaluation.offline_platform import BundleModels, OfflinePlatform
from ecrs_models.evaluation.period import TASKS, EvaluationPeriod
from ecrs_models.evaluation.results import BEST_POSSIBLE, OURS, RETRIEVAL, RankingResults
from ecrs_models.snapshots.snapshot import EncodedTables, Snapshot
from ecrs_models.synthetic.oracle import Oracle, is_planted

POPULARITY, HISTORY = "popularity", "history, then popularity"


@dataclass(frozen=True)
class Evaluation:
    """Per task: what was recommended by whom beside what was taken, the funnel's STAGES of each user,
    float64 (users, STAGES), and the candidates with the ranker's scores."""

    period: EvaluationPeriod
    end: int
    platform: OfflinePlatform
    tasks: dict[str, RankingResults]
    funnel: dict[str, np.ndarray]
    scored: dict[str, ScoredCandidates]

    def as_dict(self) -> dict[str, Any]:
        """The means, as a bundle keeps them."""
        return {
            "start": self.period.start,
            "end": self.end,
            "users": {task: len(measured.truth) for task, measured in self.tasks.items()},
            "tasks": {task: measured.means() for task, measured in self.tasks.items()},
            "funnel": {
                task: dict(zip(STAGES, values.mean(axis=0).tolist(), strict=True))
                for task, values in self.funnel.items()
            },
            "calibration": calibration(self.scored["all"]),
        }


def evaluate(
    data: Dataset,
    models: BundleModels,
    snapshot: Snapshot,
    *,
    end: int | None = None,
    more: Callable[[EvaluationPeriod], dict[str, Recommender]] = lambda _: {},
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measure `models` and the baselines on the period that begins at the snapshot.

    `more`: further recommenders to compare with. Of generated data, also the best possible ranking.
    DataError if nothing happens in the period.
    """
    start = snapshot.cutoff
    end = end or data.split.end_after(start)
    period = EvaluationPeriod.of(data, start, end)
    if not period.truth:
        raise DataError(f"{data.path}: no user who was there before buys anything in [{start}, {end})")
    baselines: dict[str, Recommender] = {
        POPULARITY: Popularity(period),
        HISTORY: HistoryThenPopularity(period),
        **more(period),
    }
    if is_planted(data):
        baselines[BEST_POSSIBLE] = Oracle(data, period.bought, LIST_LENGTH)
    progress("vectors of users")
    platform = OfflinePlatform(snapshot, models, np.array(sorted(period.truth)))
    found = Evaluation(period, end, platform, {}, {}, {})
    for task in TASKS:
        progress(f"task {task}")
        _ask(found, snapshot, task, baselines)
    return found


def _ask(found: Evaluation, snapshot: Snapshot, task: str, baselines: dict[str, Recommender]) -> None:
    """Everybody for the lists of one task, into `found`."""
    period, new = found.period, task == "new"
    truth = period.truth_of(task)
    lists = {
        name: {user: recommend(user, new)[:LIST_LENGTH] for user in truth}
        for name, recommend in baselines.items()
    }
    merged, ours = lists.setdefault(RETRIEVAL, {}), lists.setdefault(OURS, {})
    rows, scores, right = [], [], []
    for user, taken in truth.items():
        answer = found.platform.answer(user, new_only=new)
        merged[user], ours[user] = answer.proposals.item[:LIST_LENGTH], answer.ranked[:LIST_LENGTH]
        aggregates = snapshot.encoded_aggregates(user).item
        rows.append(stages(answer, taken, period.catalogue, period.bought(user), aggregates))
        scores.append(answer.scores)
        right.append(np.isin(answer.proposals.item, taken))
    found.tasks[task] = RankingResults(truth, lists)
    found.funnel[task] = np.array(rows).reshape(-1, len(STAGES))
    found.scored[task] = ScoredCandidates(np.concatenate(scores), np.concatenate(right))


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

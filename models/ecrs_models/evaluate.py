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
from ecrs.ranking_features import Quantiles
from ecrs.recall.vectors import read_vectors
from ecrs_models import metrics
from ecrs_models.baselines import LIST_LENGTH, HistoryThenPopularity, Popularity, Recommender
from ecrs_models.calibration import Scored, calibration
from ecrs_models.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.funnel import STAGES, stages
from ecrs_models.measured import BEST_POSSIBLE, MERGED, OURS, Measured
from ecrs_models.moments import Moment, Tables
from ecrs_models.oracle import Oracle, is_planted
from ecrs_models.period import TASKS, Period
from ecrs_models.platform import Models, Platform

POPULARITY, HISTORY = "popularity", "history, then popularity"


@dataclass(frozen=True)
class Evaluation:
    """Per task: what was recommended by whom beside what was taken, the funnel's STAGES of each user,
    float64 (users, STAGES), and the candidates with the ranker's scores."""

    period: Period
    end: int
    platform: Platform
    tasks: dict[str, Measured]
    funnel: dict[str, np.ndarray]
    scored: dict[str, Scored]

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
    models: Models,
    moment: Moment,
    *,
    end: int | None = None,
    more: Callable[[Period], dict[str, Recommender]] = lambda _: {},
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measure `models` and the baselines on the period that begins at the moment.

    `more`: further recommenders to compare with. Of generated data, also the best possible ranking.
    DataError if nothing happens in the period.
    """
    start = moment.now
    end = end or data.split.end_after(start)
    period = Period.of(data, start, end)
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
    platform = Platform(moment, models, np.array(sorted(period.truth)))
    found = Evaluation(period, end, platform, {}, {}, {})
    for task in TASKS:
        progress(f"task {task}")
        _ask(found, moment, task, baselines)
    return found


def _ask(found: Evaluation, moment: Moment, task: str, baselines: dict[str, Recommender]) -> None:
    """Everybody for the lists of one task, into `found`."""
    period, new = found.period, task == "new"
    truth = period.truth_of(task)
    lists = {
        name: {user: recommend(user, new)[:LIST_LENGTH] for user in truth}
        for name, recommend in baselines.items()
    }
    merged, ours = lists.setdefault(MERGED, {}), lists.setdefault(OURS, {})
    rows, scores, right = [], [], []
    for user, taken in truth.items():
        answer = found.platform.answer(user, new_only=new)
        merged[user], ours[user] = answer.proposals.item[:LIST_LENGTH], answer.ranked[:LIST_LENGTH]
        totals = moment.past(user).item
        rows.append(stages(answer, taken, period.catalogue, period.bought(user), totals))
        scores.append(answer.scores)
        right.append(np.isin(answer.proposals.item, taken))
    found.tasks[task] = Measured(truth, lists)
    found.funnel[task] = np.array(rows).reshape(-1, len(STAGES))
    found.scored[task] = Scored(np.concatenate(scores), np.concatenate(right))


@dataclass(frozen=True)
class Opened:
    """A bundle's own models and vectors, at a moment."""

    bundle: Bundle
    data: Dataset
    models: Models
    moment: Moment

    @classmethod
    def of(cls, bundle: Bundle, data: Dataset, start: int | None = None) -> "Opened":
        """At the moment where its training ended, or at `start`.

        DataError if `data` is not the data set of the bundle.
        """
        from ecrs_models.inference import SavedModel  # paddle takes a second to import
        from ecrs_models.training import Settings

        skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))
        if skus != data.items["sku"].to_list():
            raise DataError(f"{data.path} has other products than {bundle.path}")
        settings = Settings.read(bundle.manifest["training"])
        models = Models(
            SavedModel(bundle.path / "user_tower"),
            vectors,
            SavedModel(bundle.path / "ranker"),
            Quantiles.load(bundle.path / "quantiles.json"),
            np.load(bundle.path / "recall" / "curves.npy"),
        )
        tables = Tables.of(data, bundle.encoder)
        moment = Moment.of(data.log, start or settings.until, tables, settings.tables)
        return cls(bundle, data, models, moment)


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

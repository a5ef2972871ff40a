"""The oracle of generated data, which ranks by the planted purchase probabilities."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ecrs.features.quantiles import Quantiles
from ecrs.features.ranking import FEATURES
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluation import metrics
from ecrs_models.evaluation.baselines import LIST_LENGTH, HistoryThenPopularity, Popularity
from ecrs_models.evaluation.evaluate import best_possible, evaluate
from ecrs_models.evaluation.offline_platform import BundleModels
from ecrs_models.evaluation.period import EvaluationPeriod
from ecrs_models.snapshots.snapshot import NO_CURVES, ChannelSettings, EncodedTables, Snapshot
from ecrs_models.synthetic.generate import generate_data
from ecrs_models.synthetic.oracle import Oracle
from ecrs_models.training.pipeline import fit_encoder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough purchases of few products to test probabilities: 2,000 users, 200,000 actions."""
    out = tmp_path_factory.mktemp("generated") / "small"
    generate_data(out, users=2_000, products=1_000, actions=200_000, seed=3)
    return out


def period_of(path: Path) -> tuple[Dataset, EvaluationPeriod]:
    data = Dataset.load(path)
    return data, EvaluationPeriod.of(data, data.split.test_from, data.split.until)


@pytest.mark.parametrize("new", [False, True])
def test_oracle_ranks_all_products_by_probability(small: Path, new: bool) -> None:
    """Searching the heads of a few lists gives the same result as scoring every product."""
    data, period = period_of(small)
    oracle = Oracle(data, period.bought, LIST_LENGTH)
    everything = np.arange(data.items.height)
    for user in list(period.truth)[:50]:
        probability = oracle.probabilities(user, everything)
        assert probability.sum() == pytest.approx(1)
        if new:
            probability[period.bought(user)] = -1
        best = np.sort(probability)[::-1][:100]
        assert probability[oracle(user, new)] == pytest.approx(best, abs=1e-15)


def test_purchase_rates_match_probabilities(small: Path) -> None:
    """Counts the test period's purchases that are among a user's 1, 5 and 20 most likely products."""
    data, period = period_of(small)
    oracle = Oracle(data, period.bought, LIST_LENGTH)
    later = data.log.positives().between(data.split.test_from, data.split.until)
    for length in (1, 5, 20):
        hits, expected = [], []
        for user in np.unique(later.user):
            best = oracle(int(user), False)[:length]
            items = later.item[later.start[user] : later.start[user + 1]]
            hits += np.isin(items, best).tolist()
            expected += [oracle.probabilities(int(user), best).sum()] * len(items)
        probability = np.array(expected)
        deviation = np.sqrt((probability * (1 - probability)).sum())
        assert abs(sum(hits) - probability.sum()) < 3 * deviation


@pytest.mark.parametrize("task", ["all", "new"])
def test_best_possible_is_clearly_better_than_baselines(small: Path, task: str) -> None:
    _, period = period_of(small)
    new, best = task == "new", best_possible(small, 20, task)

    def measured(recommender: Popularity | HistoryThenPopularity) -> float:
        rows = []
        for user, items in period.truth.items():
            wanted = np.setdiff1d(items, period.bought(user)) if new else items
            if len(wanted):
                rows.append(metrics.measure(recommender(user, new), wanted)["recall@20"])
        return float(np.mean(rows))

    assert best > 1.5 * measured(Popularity(period))
    assert best > 1.1 * measured(HistoryThenPopularity(period))
    assert best <= best_possible(small, 100, task) <= 1


def test_best_possible_requires_generated_data(small: Path, tmp_path: Path) -> None:
    for name in ("users.dat", "products.dat", "actions.parquet", "dataset.json"):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    with pytest.raises(DataError, match=r"is not a synthetic data set: .*truth\.json is missing"):
        best_possible(tmp_path)


def ones(width: int, ids: np.ndarray) -> np.ndarray:
    """Return ones for every row; at module level, so that worker processes can import it."""
    return np.ones((len(ids), width), np.float32)


def test_evaluation_of_generated_data_reports_best_possible(small: Path) -> None:
    """The models are constant, so only the oracle ranks well."""
    data = Dataset.load(small)
    models = BundleModels(
        user_tower=partial(ones, 2),
        vectors=np.ones((data.items.height, 2), np.float32),
        ranker=partial(ones, 1),
        quantiles=Quantiles([np.zeros(1)] * len(FEATURES)),
        curves=NO_CURVES,
    )
    start = data.split.test_from
    tables = EncodedTables.of(data, fit_encoder(data, start))
    evaluation = evaluate(data, models, Snapshot.of(data.log, start, tables, ChannelSettings()))
    for task, measured in evaluation.tasks.items():
        rows = measured.means()
        assert rows["best possible"]["recall@20"] == pytest.approx(best_possible(small, 20, task))
        assert rows["best possible"]["ndcg@20"] == max(row["ndcg@20"] for row in rows.values())
        share = rows["ECRS"]["recall@20"] / rows["best possible"]["recall@20"]
        assert measured.reached()["recall@20"].mean == pytest.approx(share)

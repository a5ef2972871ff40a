import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecrs.bundle import Bundle
from ecrs.ranking_features import CHANNELS
from ecrs.recall.proposals import Proposals
from ecrs_models import cli, metrics
from ecrs_models.dataset import DAY_S, Dataset, Split
from ecrs_models.errors import DataError
from ecrs_models.evaluate import (
    HistoryThenPopularity,
    Period,
    Popularity,
    calibration,
    evaluate,
    evaluate_bundle,
    funnel,
    write_lists,
)
from ecrs_models.moments import Moment, Tables
from ecrs_models.platform import Answer, Models
from ecrs_models.training import Settings
from tests.tiny import tiny_data

HITS = np.array([True, False, True, False])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(tiny_data(tmp_path_factory.mktemp("evaluate") / "data"))


def test_recall_is_the_share_of_the_relevant_found() -> None:
    assert metrics.recall(HITS, 5, 4) == pytest.approx(2 / 5)
    assert metrics.recall(HITS, 5, 1) == pytest.approx(1 / 5)


def test_ndcg_discounts_by_rank_and_compares_with_the_best_list() -> None:
    best_of_three = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg(HITS, 3, 4) == pytest.approx((1 + 1 / 2) / best_of_three)
    assert metrics.ndcg(HITS, 3, 1) == pytest.approx(1)
    assert metrics.ndcg(np.array([False, True]), 1, 20) == pytest.approx(1 / math.log2(3))
    assert metrics.ndcg(np.array([True, True]), 9, 2) == pytest.approx(1)


def test_hit_rate_is_one_for_any_hit_within_k() -> None:
    assert metrics.hit_rate(HITS, 1) == 1
    assert metrics.hit_rate(HITS[1:2], 20) == 0


def test_measure_and_mean_by_hand() -> None:
    found = metrics.measure(np.arange(30), np.array([0, 25, 99]))
    assert found["recall@20"] == pytest.approx(1 / 3)
    assert found["recall@100"] == pytest.approx(2 / 3)
    assert found["ndcg@20"] == pytest.approx(1 / (1 + 1 / math.log2(3) + 1 / 2))
    nothing = metrics.measure(np.zeros(0, dtype=int), np.array([1]))
    assert set(nothing.values()) == {0}
    assert metrics.mean([found, nothing])["recall@20"] == pytest.approx(1 / 6)


@pytest.fixture
def period(data: Dataset) -> Period:
    """Users 0 and 1 before day 30; user 2 is new after it; items 0 to 5, of which 5 is new."""
    from tests.unit.test_train import log_of

    day = DAY_S
    log = log_of(
        *((0, 0, 1), (0, 1, 2 * day), (0, 1, 3 * day), (0, 2, 25 * day), (1, 2, 26 * day), (1, 3, 27 * day)),
        *((0, 1, 31 * day), (0, 1, 31 * day), (0, 5, 32 * day), (0, 3, 33 * day), (1, 4, 99 * day)),
        (2, 0, 31 * day),
        users=3,
    )
    small = replace(data, log=log, items=data.items[:6])
    return Period.of(small, 30 * day, 40 * day)


def test_truth_is_the_distinct_items_of_warm_users_within_the_period(period: Period) -> None:
    assert {user: items.tolist() for user, items in period.truth.items()} == {0: [1, 3, 5]}
    assert period.catalogue.tolist() == [True, True, True, True, False, False]


def test_popularity_counts_two_weeks_and_leaves_out_what_was_had(period: Period) -> None:
    assert Popularity(period)(1, False).tolist() == [2, 3, 1, 0]
    assert Popularity(period)(0, True).tolist() == [3]


def test_history_is_by_count_then_newest_then_popularity(period: Period) -> None:
    assert HistoryThenPopularity(period)(0, False).tolist() == [1, 2, 0, 3]
    assert HistoryThenPopularity(period)(0, True).tolist() == [3]


def answer(items: list[int], channel: int, scores: list[float]) -> Answer:
    """Candidates that one channel proposed, in its order."""
    positions = np.full((len(items), len(CHANNELS)), np.nan, dtype=np.float32)
    positions[:, channel] = np.arange(1, len(items) + 1)
    chance = np.full(len(items), 0.5, dtype=np.float32)
    proposals = Proposals(np.array(items), positions, positions, chance)
    return Answer(proposals, np.array(scores, dtype=np.float32))


def test_the_funnel_says_what_each_channel_and_all_of_them_found() -> None:
    answers = {0: answer([1, 2, 3], 0, [0.1, 0.2, 0.3]), 1: answer([4, 5], 1, [0.1, 0.2])}
    shares = funnel(answers, {0: np.array([1, 3, 9, 10]), 1: np.array([5])})
    assert shares == {"again": 0.25, "similar": 0.5, "popular": 0, "vector": 0, "candidates": 0.75}


def test_calibration_by_hand() -> None:
    """Half are taken: saying so is the base line; saying the truth has no entropy, and no error."""
    truth = {0: np.array([1, 2])}
    base = calibration({0: answer([1, 2, 3, 4], 0, [0.5] * 4)}, truth, bins=1)
    assert base == pytest.approx(
        {"normalised_entropy": 1, "expected_calibration_error": 0, "predicted_over_taken": 1}
    )
    right = calibration({0: answer([1, 2, 3, 4], 0, [1, 1, 0, 0])}, truth, bins=2)
    assert right["normalised_entropy"] == pytest.approx(0, abs=1e-6)
    off = calibration({0: answer([1, 2, 3, 4], 0, [0.9, 0.9, 0.2, 0.2])}, truth, bins=2)
    assert off["expected_calibration_error"] == pytest.approx(0.15, abs=1e-6)
    assert off["predicted_over_taken"] == pytest.approx(1.1, abs=1e-6)


def test_answers_are_ranked_best_score_first() -> None:
    assert answer([4, 5, 6], 0, [0.1, 0.3, 0.2]).ranked.tolist() == [5, 6, 4]


def test_a_bundle_is_measured_as_at_its_export(data: Dataset, tiny: Bundle) -> None:
    report = evaluate_bundle(tiny, data)
    for task, rows in tiny.metrics["tasks"].items():
        for name, values in rows.items():
            assert report.tasks[task][name] == pytest.approx(values, abs=1e-3)


def test_another_data_set_is_refused(data: Dataset, tiny: Bundle) -> None:
    with pytest.raises(DataError, match="has other products than"):
        evaluate_bundle(tiny, replace(data, items=data.items[1:]))


def test_a_period_without_warm_users_is_an_error(data: Dataset, tiny: Bundle) -> None:
    empty = replace(data, about=data.about | {"split": Split(1, 2, 3).__dict__})
    tables = Tables.of(data, tiny.encoder)
    moment = Moment.of(data.log, 3, tables, Settings.read(tiny.manifest["training"]).tables)
    with pytest.raises(DataError, match="no user who was there before buys anything"):
        evaluate(empty, Models(*[None] * 5), moment)  # type: ignore[arg-type]


def test_lists_are_written_with_the_shops_ids(data: Dataset, tiny: Bundle, tmp_path: Path) -> None:
    paths = write_lists(evaluate_bundle(tiny, data), data, tmp_path)
    assert len(paths) == 8
    with open(tmp_path / "all-ecrs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["user_id"] for row in rows} <= set(data.users["user_id"])
    assert {row["sku_id"] for row in rows} <= set(data.items["sku"])
    assert [row["rank"] for row in rows[:2]] == ["1", "2"]


def test_the_command_prints_a_table_a_task(data: Dataset, tiny: Bundle) -> None:
    done = CliRunner().invoke(cli.app, ["evaluate", str(tiny.path), "--data", str(data.path)])
    assert done.exit_code == 0
    for text in ("task all", "task new", "popularity", "history, then popularity", "ECRS"):
        assert text in done.stdout

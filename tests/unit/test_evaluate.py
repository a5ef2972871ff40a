import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecrs.bundle import Bundle
from ecrs.domain import Item, User
from ecrs_models import cli, metrics
from ecrs_models.dataset import DAY_S, Dataset, Split
from ecrs_models.errors import DataError
from ecrs_models.evaluate import (
    HistoryThenPopularity,
    Models,
    Nearest,
    Period,
    Popularity,
    Ranked,
    evaluate,
    evaluate_bundle,
    write_lists,
)
from ecrs_models.export import interactions
from ecrs_models.inference import SavedModel
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


def test_the_towers_rank_nothing_that_was_never_bought_nor_what_was_had(period: Period) -> None:
    models = Models(
        user_tower=lambda ids: np.ones((len(ids), 1), dtype=np.float32),
        vectors=np.arange(6, dtype=np.float32)[:, None],
        ranker=lambda ids: -ids[:, 7:8].astype(np.float32),  # the smaller sku id first
        users=np.ones((3, 7), dtype=np.int64),
        items=np.tile(np.arange(6)[:, None], (1, 4)),
    )
    nearest = Nearest(models, period)
    assert nearest(0, False).tolist() == [3, 2, 1, 0]
    assert Ranked(models, period, nearest)(0, False).tolist() == [0, 1, 2, 3]
    assert Ranked(models, period, nearest)(0, True).tolist() == [3]


def test_evaluation_feeds_the_models_as_serving_does(data: Dataset, tiny: Bundle) -> None:
    """The ids that evaluation makes of table rows are the encoder's for the same user and items."""
    fed: dict[str, np.ndarray] = {}

    def user_tower(ids: np.ndarray) -> np.ndarray:
        fed["user"] = ids
        return SavedModel(tiny.path / "user_tower")(ids)

    def ranker(ids: np.ndarray) -> np.ndarray:
        fed["pairs"] = ids
        return np.zeros((len(ids), 1), dtype=np.float32)

    encoder, until = tiny.encoder, data.split.test_from
    items = [Item(*row) for row in data.items.rows()]
    vectors = SavedModel(tiny.path / "item_tower")(encoder.items(items))
    tables = encoder.user_table(data.users.to_dict()), encoder.item_table(data.items.to_dict())
    period = Period.of(data, until, data.split.until)
    number = next(iter(period.truth))
    models = Models(user_tower, vectors, ranker, *tables)
    order = Ranked(models, period, Nearest(models, period))(number, False)

    seen = replace(data, log=data.log.before(until))
    history = interactions(seen, number, data.items["sku"].to_list())
    user = User(*data.users.row(number), history=history)
    assert fed["user"].tolist() == encoder.users([user]).tolist()
    assert fed["pairs"].tolist() == encoder.pairs(user, [items[item] for item in order]).tolist()


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
    with pytest.raises(DataError, match="no user who was there before buys anything"):
        evaluate(empty, Models(*[None] * 5), 3)  # type: ignore[arg-type]


def test_lists_are_written_with_the_shops_ids(data: Dataset, tiny: Bundle, tmp_path: Path) -> None:
    paths = write_lists(evaluate_bundle(tiny, data), data, tmp_path)
    assert len(paths) == 8
    with open(tmp_path / "all-two-tower-deepfm.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["user_id"] for row in rows} <= set(data.users["user_id"])
    assert {row["sku_id"] for row in rows} <= set(data.items["sku"])
    assert [row["rank"] for row in rows[:2]] == ["1", "2"]


def test_the_command_prints_a_table_a_task(data: Dataset, tiny: Bundle) -> None:
    done = CliRunner().invoke(cli.app, ["evaluate", str(tiny.path), "--data", str(data.path)])
    assert done.exit_code == 0
    for text in ("task all", "task new", "popularity", "history, then popularity", "two-tower + DeepFM"):
        assert text in done.stdout

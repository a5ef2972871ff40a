"""Recall's channels over small tables, and how they merge."""

from dataclasses import replace

import numpy as np
import pytest

from ecrs.domain.aggregates import AGGREGATE_COLUMNS
from ecrs.domain.clock import DAY_S
from ecrs.features.catalogue import NO_ID, Catalogue
from ecrs.features.ranking import CHANNELS, EncodedAggregates
from ecrs.recall.blending import DEPTH, CandidateGenerator
from ecrs.recall.channels import (
    Interest,
    PopularItems,
    ScoredItems,
    SimilarItems,
    most_sold,
    repurchase,
    top_items,
)
from ecrs_models.snapshots.item_statistics import item_statistics
from ecrs_models.snapshots.similar_items import similar_items
from ecrs_models.snapshots.snapshot import Snapshot
from ecrs_models.training.ranking_examples import ExampleUser, SnapshotExamples, position_precision
from tests.unit.test_train import log_of

NOW = 100 * DAY_S
ITEMS = 6


def interest(bought: dict[int, float]) -> Interest:
    item = np.array(list(bought), dtype=np.int64)
    return Interest(item, np.array(list(bought.values()), dtype=float), np.zeros(len(bought)))


def nothing() -> ScoredItems:
    return ScoredItems(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


@pytest.fixture
def generator() -> CandidateGenerator:
    """Six products in two categories; 0 goes with 1 and 2; 5 sells best; chances halve by place."""
    table = np.full((ITEMS, 2), NO_ID, dtype=np.int32)
    score = np.zeros((ITEMS, 2), dtype=np.float32)
    table[0], score[0] = [1, 2], [0.9, 0.3]
    share = np.array([0.05, 0.1, 0.05, 0.2, 0.2, 0.4])
    category = np.array([0, 0, 0, 1, 1, 1])
    popular = PopularItems(share, category, np.bincount(category, share), most_sold(share))
    catalogue = Catalogue.of(
        [str(sku) for sku in range(ITEMS)], np.tile(np.arange(ITEMS)[:, None] + 2, (1, 4))
    )
    curves = np.tile(0.5 ** np.arange(1, DEPTH + 1, dtype=np.float32), (len(CHANNELS), 1))
    return CandidateGenerator(catalogue, SimilarItems(table, score), popular, np.maximum(curves, 1e-6))


def test_again_is_by_how_much_and_how_lately() -> None:
    numbers = np.zeros((3, len(AGGREGATE_COLUMNS)))
    numbers[:, AGGREGATE_COLUMNS.index("orders")] = 1
    numbers[:, AGGREGATE_COLUMNS.index("long")] = [1, 1, 3]
    numbers[:, AGGREGATE_COLUMNS.index("last_order")] = [NOW, NOW - 50 * DAY_S, NOW - 50 * DAY_S]
    found = repurchase(Interest.of(np.array([3, 4, NO_ID]), numbers, NOW))
    assert found.item.tolist() == [3, 4]
    assert found.score.tolist() == pytest.approx([1, np.exp(-50 / 120)])


def test_similar_sums_over_what_was_taken(generator: CandidateGenerator) -> None:
    found = top_items(np.arange(6), generator.similar.scores(interest({0: 4.0})), 10)
    assert found.item.tolist() == [1, 2]
    assert found.score.tolist() == pytest.approx([1.8, 0.6])


def test_popular_is_what_sells_and_bends_to_the_users_categories(generator: CandidateGenerator) -> None:
    nothing, near = interest({}), ScoredItems(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    assert generator.single_channel("popular", nothing, near, 3).item.tolist() == [5, 3, 4]
    assert generator.single_channel("popular", interest({0: 500.0}), near, 3).item.tolist() == [1, 0, 2]


def test_only_the_best_sellers_can_be_popular(
    generator: CandidateGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.recall.channels.MAX_POPULAR", 2)
    few = replace(generator.popular, sellers=most_sold(generator.popular.share))
    nothing, near = interest({}), ScoredItems(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    assert replace(generator, popular=few).single_channel("popular", nothing, near, 9).item.tolist() == [5, 3]


def test_merged_candidates_are_by_chance_and_say_who_found_them(generator: CandidateGenerator) -> None:
    vector = ScoredItems(np.array([5, 0, 9]), np.array([0.1, 0.2, 0.3], dtype=np.float32))
    had = np.array([0, NO_ID])
    merged = generator.blend(generator.user_context(interest({0: 4.0}), had), vector, 10)
    assert merged.item[0] == 5  # first of two channels: 1 - ½·½
    assert merged.precision[0] == pytest.approx(0.75)
    assert (np.diff(merged.precision) <= 0).all()
    positions = dict(zip(merged.item.tolist(), merged.positions.tolist(), strict=True))
    assert positions[0] == pytest.approx([1, np.nan, np.nan, np.nan], nan_ok=True)  # the own is for `again`
    assert positions[5] == pytest.approx([np.nan, np.nan, 1, 1], nan_ok=True)
    assert positions[9] == pytest.approx([np.nan, np.nan, np.nan, 2], nan_ok=True)  # no product of the bundle
    scores = dict(zip(merged.item.tolist(), merged.scores.tolist(), strict=True))
    assert scores[0][1:3] == pytest.approx(  # not proposed by them, but scored
        [0, generator.popular.scores(np.array([0]), generator.popular.lift(interest({0: 4.0})))[0]]
    )


def test_new_only_proposes_nothing_that_was_bought(generator: CandidateGenerator) -> None:
    bought_0_looked_at_1 = Interest(np.array([0, 1]), np.array([4.0, 0]), np.array([0, 1.0]))
    asked = generator.user_context(bought_0_looked_at_1, np.array([0, 1]), new_only=True)
    merged = generator.blend(asked, nothing(), 10)
    assert 0 not in merged.item
    place = merged.item.tolist().index(1)
    assert merged.positions[place, CHANNELS.index("repurchase")] == 1


def test_a_user_without_anything_gets_what_sells(generator: CandidateGenerator) -> None:
    asked = generator.user_context(interest({}), np.zeros(0, dtype=np.int64))
    merged = generator.blend(asked, nothing(), 3)
    assert merged.item.tolist() == [5, 3, 4]


def test_curves_fall_and_estimate_how_often_a_position_is_bought(generator: CandidateGenerator) -> None:
    snapshot = Snapshot(NOW, *[None] * 4, generator)  # type: ignore[arg-type]
    past = EncodedAggregates(
        np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.int64), np.zeros((0, len(AGGREGATE_COLUMNS)))
    )
    users = [ExampleUser(user, past, nothing(), np.array([item]), True) for user, item in ((0, 5), (1, 3))]
    curves = position_precision(*SnapshotExamples(snapshot, users).channel_hits())
    assert curves.shape == (len(CHANNELS), DEPTH)
    assert curves[CHANNELS.index("popular"), :2] == pytest.approx([0.5, 0.5], abs=0.01)
    assert (np.diff(curves, axis=1) <= 0).all()
    assert curves.min() > 0


def test_what_is_bought_together_is_similar() -> None:
    """Users 0-9 buy 0 with 1; users 10-19 buy 2 with 3."""
    rows = [(user, item, 1) for user in range(20) for item in ((0, 1) if user < 10 else (2, 3))]
    items, scores = similar_items(log_of(*rows, users=20), 5, most=4, ridge=0.1, neighbours=2)
    assert items[:4, 0].tolist() == [1, 0, 3, 2]
    assert (scores[:4, 0] > 0).all()
    assert items[4].tolist() == [NO_ID, NO_ID]


def test_statistics_are_of_before_the_snapshot() -> None:
    log = log_of((0, 0, 1 * DAY_S), (0, 0, 11 * DAY_S), (1, 0, 95 * DAY_S), (1, 1, 99 * DAY_S))
    table = item_statistics(log, 3, NOW)
    assert np.isnan(table[2]).all()
    million = np.log1p(1e6 / 2)
    assert table[0] == pytest.approx(
        [million, million, np.log1p(1e6 / 2), np.log1p(3e6 / 4), 0, np.log(3), 0.5, 10, 1, 99], rel=1e-4
    )

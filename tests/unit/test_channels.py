"""The retrieval channels over small tables, and the blending of their candidates."""

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
from tests.unit.test_training import log_of

NOW = 100 * DAY_S
ITEMS = 6


def interest(bought: dict[int, float]) -> Interest:
    item = np.array(list(bought), dtype=np.int64)
    return Interest(item, np.array(list(bought.values()), dtype=float), np.zeros(len(bought)))


def no_items() -> ScoredItems:
    return ScoredItems(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


@pytest.fixture
def generator() -> CandidateGenerator:
    """Six items in two categories: 0 is similar to 1 and 2, 5 sells best; precision halves by position."""
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


def test_repurchase_scores_by_decayed_purchases() -> None:
    numbers = np.zeros((3, len(AGGREGATE_COLUMNS)))
    numbers[:, AGGREGATE_COLUMNS.index("orders")] = 1
    numbers[:, AGGREGATE_COLUMNS.index("long")] = [1, 1, 3]
    numbers[:, AGGREGATE_COLUMNS.index("last_order")] = [NOW, NOW - 50 * DAY_S, NOW - 50 * DAY_S]
    scored = repurchase(Interest.of(np.array([3, 4, NO_ID]), numbers, NOW))
    assert scored.item.tolist() == [3, 4]
    assert scored.score.tolist() == pytest.approx([1, np.exp(-50 / 120)])


def test_similar_sums_scores_over_items_of_the_user(generator: CandidateGenerator) -> None:
    scored = top_items(np.arange(6), generator.similar.scores(interest({0: 4.0})), 10)
    assert scored.item.tolist() == [1, 2]
    assert scored.score.tolist() == pytest.approx([1.8, 0.6])


def test_popular_is_reweighted_by_category_affinity(generator: CandidateGenerator) -> None:
    no_interest, near = interest({}), no_items()
    assert generator.single_channel("popular", no_interest, near, 3).item.tolist() == [5, 3, 4]
    assert generator.single_channel("popular", interest({0: 500.0}), near, 3).item.tolist() == [1, 0, 2]


def test_popular_is_limited_to_the_most_sold(
    generator: CandidateGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrs.recall.channels.MAX_POPULAR", 2)
    limited = replace(generator.popular, sellers=most_sold(generator.popular.share))
    scored = replace(generator, popular=limited).single_channel("popular", interest({}), no_items(), 9)
    assert scored.item.tolist() == [5, 3]


def test_blended_candidates_are_ordered_by_precision_with_provenance(generator: CandidateGenerator) -> None:
    vector = ScoredItems(np.array([5, 0, 9]), np.array([0.1, 0.2, 0.3], dtype=np.float32))
    had = np.array([0, NO_ID])
    blended = generator.blend(generator.user_context(interest({0: 4.0}), had), vector, 10)
    assert blended.item[0] == 5  # first in two channels: 1 - ½·½
    assert blended.precision[0] == pytest.approx(0.75)
    assert (np.diff(blended.precision) <= 0).all()
    positions = dict(zip(blended.item.tolist(), blended.positions.tolist(), strict=True))
    # The user had item 0, so only `repurchase` may propose it; item 9 is not in the bundle.
    assert positions[0] == pytest.approx([1, np.nan, np.nan, np.nan], nan_ok=True)
    assert positions[5] == pytest.approx([np.nan, np.nan, 1, 1], nan_ok=True)
    assert positions[9] == pytest.approx([np.nan, np.nan, np.nan, 2], nan_ok=True)
    scores = dict(zip(blended.item.tolist(), blended.scores.tolist(), strict=True))
    assert scores[0][1:3] == pytest.approx(  # scored by these channels, though not retrieved
        [0, generator.popular.scores(np.array([0]), generator.popular.lift(interest({0: 4.0})))[0]]
    )


def test_new_only_excludes_bought_items(generator: CandidateGenerator) -> None:
    bought_0_viewed_1 = Interest(np.array([0, 1]), np.array([4.0, 0]), np.array([0, 1.0]))
    context = generator.user_context(bought_0_viewed_1, np.array([0, 1]), new_only=True)
    blended = generator.blend(context, no_items(), 10)
    assert 0 not in blended.item
    row = blended.item.tolist().index(1)
    assert blended.positions[row, CHANNELS.index("repurchase")] == 1


def test_user_without_history_gets_popular_items(generator: CandidateGenerator) -> None:
    context = generator.user_context(interest({}), np.zeros(0, dtype=np.int64))
    blended = generator.blend(context, no_items(), 3)
    assert blended.item.tolist() == [5, 3, 4]


def test_precision_curves_descend_and_estimate_purchase_rate_by_position(
    generator: CandidateGenerator,
) -> None:
    snapshot = Snapshot(NOW, *[None] * 4, generator)  # type: ignore[arg-type]
    past = EncodedAggregates(
        np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.int64), np.zeros((0, len(AGGREGATE_COLUMNS)))
    )
    users = [ExampleUser(user, past, no_items(), np.array([item]), True) for user, item in ((0, 5), (1, 3))]
    curves = position_precision(*SnapshotExamples(snapshot, users).channel_hits())
    assert curves.shape == (len(CHANNELS), DEPTH)
    assert curves[CHANNELS.index("popular"), :2] == pytest.approx([0.5, 0.5], abs=0.01)
    assert (np.diff(curves, axis=1) <= 0).all()
    assert curves.min() > 0


def test_items_bought_together_are_similar() -> None:
    """Users 0-9 buy 0 with 1; users 10-19 buy 2 with 3."""
    rows = [(user, item, 1) for user in range(20) for item in ((0, 1) if user < 10 else (2, 3))]
    items, scores = similar_items(log_of(*rows, users=20), 5, most=4, ridge=0.1, neighbours=2)
    assert items[:4, 0].tolist() == [1, 0, 3, 2]
    assert (scores[:4, 0] > 0).all()
    assert items[4].tolist() == [NO_ID, NO_ID]


def test_item_statistics_use_only_actions_before_the_snapshot() -> None:
    log = log_of((0, 0, 1 * DAY_S), (0, 0, 11 * DAY_S), (1, 0, 95 * DAY_S), (1, 1, 99 * DAY_S))
    table = item_statistics(log, 3, NOW)
    assert np.isnan(table[2]).all()
    million = np.log1p(1e6 / 2)
    assert table[0] == pytest.approx(
        [million, million, np.log1p(1e6 / 2), np.log1p(3e6 / 4), 0, np.log(3), 0.5, 10, 1, 99], rel=1e-4
    )

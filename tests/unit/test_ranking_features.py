"""The ranker's features match hand-computed values, and are equal from a request and from the log."""

from pathlib import Path

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, Aggregates
from ecrs.domain.clock import DAY_S
from ecrs.domain.entities import Item, User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.quantiles import LEVELS, Quantiles
from ecrs.features.ranker_input import ranker_matrix
from ecrs.features.ranking import (
    CHANNELS,
    FEATURES,
    STATISTICS,
    EncodedAggregates,
    EncodedCandidates,
    ranking_features,
)
from ecrs.rank.tables import load_ranker_inputs
from ecrs.recall.channels import ScoredItems
from ecrs_models.data.dataset import Dataset
from ecrs_models.snapshots.snapshot import EncodedTables, Snapshot
from ecrs_models.training.settings import TrainingSettings
from tests.tiny import tiny_data

NOW = 100 * DAY_S
NAN = np.nan


def aggregates_row(**numbers: float) -> list[float]:
    return [numbers.get(name, 0.0) for name in AGGREGATE_COLUMNS]


def candidates(items: list[int], groups: list[list[int]], **statistics: float) -> EncodedCandidates:
    statistics_rows = np.array(
        [[statistics.get(name, NAN) for name in STATISTICS]] * len(items), dtype=np.float32
    )
    not_retrieved = np.full((len(items), len(CHANNELS)), NAN, dtype=np.float32)
    return EncodedCandidates(
        np.array(items), np.array(groups), statistics_rows, not_retrieved, not_retrieved.copy()
    )


def features(aggregates: EncodedAggregates, encoded: EncodedCandidates) -> list[dict[str, float]]:
    matrix = ranking_features(aggregates, encoded, NOW)
    assert matrix.shape == (len(encoded.item), len(FEATURES))
    return [dict(zip(FEATURES, map(float, row), strict=True)) for row in matrix]


BREAD = aggregates_row(
    orders=5, first_order=20 * DAY_S, last_order=90 * DAY_S, short=np.exp(1 / 3), long=2 * np.exp(1 / 12)
)
CAKE = aggregates_row(orders=1, first_order=60 * DAY_S, last_order=60 * DAY_S, short=1, long=np.exp(1 / 3))
AGGREGATES = EncodedAggregates(np.array([7, 8]), np.array([[1, 1, 4], [2, 1, 4]]), np.array([BREAD, CAKE]))


def test_features_of_a_product_that_the_user_bought() -> None:
    (bread,) = features(AGGREGATES, candidates([7], [[1, 1, 4]], interval_days=20))
    expected = {
        "orders": 5, "long": 2, "short": 1, "share": 2 / 3, "since": 10, "first_since": 80,
        "interval": 70 / 4, "due": 10 / 17.5, "rate": 5 / 80, "item_due": 10 / 20,
        "user_products": np.log(3), "user_orders": np.log(7), "user_since": 10, "user_tenure": 80,
        "user_exploration": 1 / 2, "user_repeats": 3,
        "category_orders": 6, "category_long": 3, "category_since": 10, "category_products": 2,
        "brand_orders": 5, "shop_long": 3, "share_in_category": 2 / 3, "since_in_category": 0,
        "category_due": 10 * 5 / 70, "engagements": 0, "channels": 0,
    }  # fmt: skip
    assert {name: bread[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_features_of_a_new_product_in_a_known_category() -> None:
    (pie,) = features(AGGREGATES, candidates([9], [[3, 1, 4]]))
    assert (pie["orders"], pie["long"], pie["brand_orders"], pie["category_orders"]) == (0, 0, 0, 6)
    assert np.isnan([pie["since"], pie["interval"], pie["due"], pie["since_in_category"]]).all()
    assert pie["share_in_category"] == 0


def test_unknown_products_and_groups_match_nothing() -> None:
    aggregates = EncodedAggregates(np.array([-1]), np.array([[-1, -1, -1]]), np.array([BREAD]))
    (strange,) = features(aggregates, candidates([-1], [[-1, -1, -1]]))
    assert (strange["orders"], strange["category_orders"]) == (0, 0)


def test_features_of_a_user_without_history() -> None:
    empty = EncodedAggregates(
        np.zeros(0, dtype=int), np.zeros((0, 3), dtype=int), np.zeros((0, len(AGGREGATE_COLUMNS)))
    )
    (row,) = features(empty, candidates([7], [[1, 1, 4]], share_7d=3))
    assert (row["user_products"], row["orders"], row["share_7d"]) == (0, 0, 3)
    assert np.isnan([row["user_since"], row["since"], row["category_due"]]).all()


def test_features_count_channels_and_keep_best_position() -> None:
    encoded = candidates([7, 8], [[1, 1, 4], [2, 1, 4]])
    encoded.positions[0] = [NAN, 5, 3, NAN]
    encoded.scores[0] = [NAN, 0.5, 0.3, NAN]
    first, second = features(AGGREGATES, encoded)
    assert (first["channels"], first["best_position"], first["similar_score"]) == (2, 3, 0.5)
    assert second["channels"] == 0
    assert np.isnan(second["best_position"])


def test_levels_are_quantiles_and_zero_means_missing(tmp_path: Path) -> None:
    values = np.full((1000, len(FEATURES)), NAN, dtype=np.float32)
    values[:, 0], values[:, 1] = np.arange(1000), np.arange(1000) % 2
    quantiles = Quantiles.fit(values)
    quantiles.save(tmp_path / "quantiles.json")
    for each in (quantiles, Quantiles.load(tmp_path / "quantiles.json")):
        levels = each.levels(values)
        assert (levels[:, 2:] == 0).all()
        assert levels[0, 0] == 1
        assert levels[-1, 0] == LEVELS - 1
        assert (np.diff(levels[:, 0]) >= 0).all()
        assert len(set(levels[:, 1])) == 2


def test_request_and_log_give_the_same_ranker_input(tiny: Bundle, tmp_path: Path) -> None:
    """Serving builds the input from a request, training and evaluation from the log; all ids are equal."""
    data = Dataset.load(tiny_data(tmp_path / "data"))
    encoder, settings = tiny.encoder, TrainingSettings.read(tiny.manifest.training)
    curves = np.load(tiny.path / "recall" / "curves.npy")
    tables = EncodedTables.of(data, encoder)
    snapshot = Snapshot.of(data.log, tiny.as_of, tables, settings.tables, curves)
    inputs = load_ranker_inputs(tiny)
    skus = data.items["sku"].to_list()
    for number in (0, 1, 2, 30):
        aggregates = snapshot.encoded_aggregates(number)
        no_neighbours = ScoredItems(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        blended = snapshot.blend(aggregates, no_neighbours, 50)
        levels = inputs.quantiles.levels(snapshot.features(aggregates, blended))
        profiles = np.repeat(tables.users[number][None], len(levels), axis=0)
        expected = ranker_matrix(profiles, tables.items[blended.item], levels)

        item, numbers = snapshot.aggregates.of(number)
        user_id, *profile = data.users.row(number)
        user = User(user_id, *profile, aggregates=Aggregates(tuple(skus[row] for row in item), numbers))
        items = [Item(*data.items.row(row)) for row in blended.item.tolist()]
        positions = np.nan_to_num(blended.positions).astype(int)
        provenance = ProvenanceTable(CHANNELS, positions, blended.scores)
        served = inputs.ids(user, inputs.items(items), provenance, snapshot.cutoff)
        assert served.tolist() == expected.tolist()


def test_statistics_come_from_the_bundle_and_unknown_items_have_none(tiny: Bundle) -> None:
    inputs = load_ranker_inputs(tiny)
    last = tiny.catalogue.skus[-1]  # its row is the one that NO_ID, -1, would index
    items = inputs.items([Item("never seen"), Item(last)])
    ids = inputs.ids(User(), items, ProvenanceTable.empty(2), tiny.as_of)
    unknown, known = ids[:, -len(FEATURES) :][:, : len(STATISTICS)]
    assert (unknown == 0).all()
    assert (known > 0).any()

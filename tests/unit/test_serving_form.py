"""The serving form of a ranker gives the same scores as the trained network."""

import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from pathlib import Path

import numpy as np
import paddle
import pytest

from ecrs.features.quantiles import LEVELS, RANKER_COLUMNS
from ecrs.features.ranking import FEATURES
from ecrs.serving.served_model import TOLERANCE
from ecrs.serving.signature import ModelSignature
from ecrs_models.evaluation.saved_model import SavedModel
from ecrs_models.export.model_files import save_model
from ecrs_models.export.serving_form import ServedDeepFM, serving_form
from ecrs_models.training.rankers import RANKERS

VOCABULARIES = len(RANKER_COLUMNS) - len(FEATURES)
CARDINALITY = (*range(2, 2 + VOCABULARIES), *[LEVELS] * len(FEATURES))
EDGE_LEVELS = (0, 1, 16, 17, LEVELS - 1)


def ranker(name: str) -> paddle.nn.Layer:
    """Return a ranker with all parameters random, also those that start at zero, so that each one matters."""
    network, rng = RANKERS[name](CARDINALITY), np.random.default_rng(1)
    for parameter in network.parameters():
        parameter.set_value(rng.normal(scale=0.1, size=parameter.shape).astype(np.float32))
    network.eval()
    return network


def ids() -> np.ndarray:
    """Return random rows and edge cases: a row of the lowest ids, one of the highest, one per edge level."""
    rows = np.random.default_rng(2).integers(CARDINALITY, size=(200, len(CARDINALITY)))
    rows[0], rows[1] = 0, np.array(CARDINALITY) - 1
    for row, level in enumerate(EDGE_LEVELS, 2):
        rows[row, VOCABULARIES:] = level
    return rows


def test_served_deepfm_matches_trained_network() -> None:
    network = ranker("deepfm")
    form = serving_form(network)
    assert isinstance(form, ServedDeepFM)
    expected = network(paddle.to_tensor(ids())).numpy()
    assert expected.std() > 0.05
    assert form(paddle.to_tensor(ids())).numpy() == pytest.approx(expected, abs=TOLERANCE)


def test_served_table_has_one_more_number_per_id() -> None:
    """The row of an id has one number more than the trained tables hold for it."""
    network = ranker("deepfm")
    fixed = LEVELS * len(FEATURES)
    rows, width = serving_form(network).rows.weight.shape
    assert rows == network.ids.weight.shape[0] + fixed
    assert width == network.ids.weight.shape[1] + network.first.weight.shape[1] + 1


@pytest.mark.parametrize("name", RANKERS)
def test_saved_ranker_matches_trained_network(name: str, tmp_path: Path) -> None:
    network = ranker(name)
    signature = ModelSignature("ranker", "1", "ids", "score", RANKER_COLUMNS, CARDINALITY, 1)
    save_model(network, signature, tmp_path / "ranker")
    expected = network(paddle.to_tensor(ids())).numpy()
    saved = SavedModel(tmp_path / "ranker")
    assert saved(ids()) == pytest.approx(expected, abs=TOLERANCE)
    assert saved(ids()[:1]) == pytest.approx(expected[:1], abs=TOLERANCE)

"""Bundles: verification of files, golden rows, vectors and item statistics."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from ecrs.bundle import MODELS, Bundle, BundleError, new_version, writing
from ecrs.domain.entities import HISTORY_LENGTH, Item
from ecrs.features.quantiles import RANKER_COLUMNS
from ecrs.rank.tables import ITEM_STATISTICS, load_ranker_inputs
from ecrs.storage.vectors import read_vectors
from ecrs_models.data.dataset import Dataset
from ecrs_models.evaluation.saved_model import SavedModel
from ecrs_models.snapshots.item_statistics import item_statistics
from tests.golden import golden_items, golden_ranker_ids, golden_users


def copy_of(bundle: Bundle, to: Path) -> Path:
    return Path(shutil.copytree(bundle.path, to / "copy"))


@pytest.mark.parametrize("name", ["ranker/inference.pdiparams", "users.dat", "vocabulary/sku.txt"])
def test_file_with_changed_byte_is_refused_by_name(tiny: Bundle, tmp_path: Path, name: str) -> None:
    path = copy_of(tiny, tmp_path) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=name):
        Bundle.open(tmp_path / "copy")


def test_missing_file_is_refused_by_name(tiny: Bundle, tmp_path: Path) -> None:
    (copy_of(tiny, tmp_path) / "histories.dat").unlink()
    with pytest.raises(BundleError, match=r"histories\.dat is missing"):
        Bundle.open(tmp_path / "copy")


def test_failed_write_leaves_no_files(tiny: Bundle, tmp_path: Path) -> None:
    manifest = structs.replace(tiny.manifest, version=new_version(b""))
    with pytest.raises(BundleError, match="is not listed"), writing(tmp_path, manifest) as draft:
        (draft / "users.dat").write_text("1")
    assert list(tmp_path.iterdir()) == []


def test_saved_models_reproduce_golden_rows(tiny: Bundle) -> None:
    for name in MODELS:
        golden = tiny.golden[name]
        outputs = SavedModel(tiny.path / name)(np.array(golden["ids"]))
        np.testing.assert_allclose(outputs, golden["outputs"], atol=1e-5)


def test_golden_ids_encode_the_raw_users_and_items(tiny: Bundle) -> None:
    golden, encoder = tiny.golden, tiny.encoder
    assert encoder.users(golden_users(tiny)).tolist() == golden["user_tower"]["ids"]
    assert encoder.items(golden_items(tiny)).tolist() == golden["item_tower"]["ids"]
    assert golden_ranker_ids(tiny) == golden["ranker"]["ids"]


def test_golden_rows_include_edge_cases(tiny: Bundle) -> None:
    users = tiny.golden["users"]
    assert {0, HISTORY_LENGTH} <= {len(user["history"]) for user in users}
    by_profile = [user for user in users if not user["id"] and not user["history"]]
    assert any(user["age"] != "-1" for user in by_profile)
    assert any(user["age"] == "-1" for user in by_profile)
    assert any(user["age"] == "never seen" for user in users)
    assert any(item["sku"] == "never seen" for item in tiny.golden["items"])
    orders = RANKER_COLUMNS.index("orders")
    assert len({row[orders] for row in tiny.golden["ranker"]["ids"]}) > 2, (
        "no item that its user ordered before"
    )


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_saved_model_scores_rows_independently_in_any_batch_size(tiny: Bundle, rows: int) -> None:
    for name in MODELS:
        ids = np.array(tiny.golden[name]["ids"])
        model = SavedModel(tiny.path / name)
        outputs = model(np.resize(ids, (rows, ids.shape[1])))
        np.testing.assert_allclose(outputs, np.resize(tiny.golden[name]["outputs"], outputs.shape), atol=1e-5)


def test_vectors_are_exact_item_tower_outputs_of_unit_length(tiny: Bundle) -> None:
    skus, vectors = read_vectors(tiny.lines("product_vectors.txt"), tiny.count("product_vectors.txt"))
    items = [Item(*line.split(":")) for line in tiny.lines("products.dat")]
    assert skus == [item.sku for item in items]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors, SavedModel(tiny.path / "item_tower")(tiny.encoder.items(items)))


def test_item_statistics_describe_log_at_cutoff(tiny: Bundle) -> None:
    data = Dataset.load(tiny.path.parents[1] / "data")
    expected = item_statistics(data.log, data.items.height, tiny.as_of)
    statistics = np.load(tiny.path / ITEM_STATISTICS)
    never_sold = np.isnan(statistics).all(axis=1)
    assert 0 < never_sold.sum() < len(statistics)
    assert statistics.dtype == np.float32
    np.testing.assert_array_equal(statistics, expected)


def test_item_statistics_of_wrong_shape_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    copy = Bundle(copy_of(tiny, tmp_path), tiny.manifest)
    np.save(copy.path / ITEM_STATISTICS, np.load(tiny.path / ITEM_STATISTICS)[1:])
    with pytest.raises(BundleError, match=r"item_statistics\.npy: shape \(299, 10\), expected \(300, 10\)"):
        load_ranker_inputs(copy)


def test_serving_configuration_uses_names_of_signature(tiny: Bundle) -> None:
    for name in MODELS:
        signature = json.loads((tiny.path / name / "signature.json").read_text())
        text = (tiny.path / name / "serving_server_conf.prototxt").read_text()
        assert f'alias_name: "{signature["feed"]}"' in text
        assert f'alias_name: "{signature["fetch"]}"' in text
        assert signature["version"] == tiny.version

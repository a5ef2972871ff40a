"""Warm starts from an earlier bundle, and the gate that keeps a worse bundle from being exported."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecrs.bundle import Bundle, BundleError
from ecrs.features.encoding import FIRST_KNOWN, OUT_OF_VOCABULARY, Encoder, Vocabulary
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.export import bundle_writer
from ecrs_models.export.gate import compare
from ecrs_models.training import pipeline
from ecrs_models.training.networks import in_batches, new_networks
from ecrs_models.training.warm_start import WarmStart, remapped_table, warm_start_settings
from ecrs_models.training.weights import save_weights
from tests.tiny import resealed, tiny_data, tiny_settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(tiny_data(tmp_path_factory.mktemp("warm") / "data"))


@pytest.fixture(scope="module")
def earlier(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle trained only on the actions before the validation period."""
    root = tmp_path_factory.mktemp("earlier")
    settings = replace(tiny_settings(data), until=data.split.valid_from)
    pipeline.train(data, root / "train", settings)
    version = bundle_writer.export(pipeline.load(root / "train"), data, root / "bundles")
    return Bundle.open(root / "bundles" / version)


def test_rows_move_with_their_values_and_new_values_start_as_unknown() -> None:
    old = Encoder({"brand": Vocabulary.build(["a", "c"]), "shop": Vocabulary.build(["x"])})
    new = Encoder({"brand": Vocabulary.build(["a", "b", "c"]), "shop": Vocabulary.build(["y"])})
    table = np.arange(7, dtype=np.float32)[
        :, None
    ]  # brand: padding, unknown, a, c; shop: padding, unknown, x
    assert remapped_table(table, ("brand", "shop"), old, new)[:, 0].tolist() == [0, 1, 2, 1, 3, 4, 5, 5]


def test_warm_start_loads_the_weights_of_known_values(data: Dataset, earlier: Bundle) -> None:
    start = WarmStart.of(earlier)
    encoder = pipeline.fit_encoder(data, data.split.test_from)
    two_tower, ranker = new_networks(encoder, tiny_settings(data))
    start.load_into("two_tower", two_tower, encoder)
    start.load_into("ranker", ranker, encoder)
    sku = next(iter(earlier.encoder.vocabularies["sku"].ids))
    old_table = start.states["two_tower"]["user_tower.sku.weight"]
    new_table = two_tower.user_tower.sku.weight.numpy()
    row = encoder.vocabularies["sku"].encode(sku)
    assert new_table[row].tolist() == old_table[earlier.encoder.vocabularies["sku"].encode(sku)].tolist()
    new_skus = set(encoder.vocabularies["sku"].ids) - set(earlier.encoder.vocabularies["sku"].ids)
    assert new_skus
    for new_sku in new_skus:
        assert (
            new_table[encoder.vocabularies["sku"].encode(new_sku)].tolist()
            == old_table[OUT_OF_VOCABULARY].tolist()
        )
    assert np.array_equal(ranker.out.weight.numpy(), start.states["ranker"]["out.weight"])


def test_warm_started_ranker_reproduces_golden_rows(data: Dataset, earlier: Bundle) -> None:
    """All vocabularies share one table; when one grows, ids of the others are looked up at new offsets."""
    known = earlier.encoder.vocabularies["sku"].ids
    newer = Vocabulary(known | {"new": len(known) + FIRST_KNOWN})
    encoder = Encoder(earlier.encoder.vocabularies | {"sku": newer})
    _, ranker = new_networks(encoder, tiny_settings(data))
    WarmStart.of(earlier).load_into("ranker", ranker, encoder)
    ranker.eval()
    golden = earlier.golden["ranker"]
    assert in_batches(ranker, np.array(golden["ids"])) == pytest.approx(np.array(golden["outputs"]), abs=1e-5)


def test_warm_started_training_is_short_and_can_be_exported(
    data: Dataset, earlier: Bundle, tmp_path: Path
) -> None:
    start = WarmStart.of(earlier)
    settings = warm_start_settings(tiny_settings(data), start)
    assert (settings.start, settings.early_epochs, settings.snapshots) == (earlier.version, 0, 2)
    pipeline.train(data, tmp_path / "train", settings, start=start)
    version = bundle_writer.export(
        pipeline.load(tmp_path / "train"), data, tmp_path / "bundles", gate=earlier
    )
    bundle = Bundle.open(tmp_path / "bundles" / version)
    assert bundle.manifest.training["start"] == earlier.version
    assert bundle.metrics["gate"]["current"] == earlier.version


def test_worse_bundle_is_not_exported(data: Dataset, earlier: Bundle) -> None:
    start = data.split.test_from
    bad = {"tasks": {task: {"ECRS": {"recall@20": 0.0}} for task in ("all", "new")}}
    with pytest.raises(
        DataError, match=rf"not exported: recall@20 in task all is 0\.0000.*{earlier.version}"
    ):
        compare(bad, earlier, data, start)
    good = {"tasks": {task: {"ECRS": {"recall@20": 1.0}} for task in ("all", "new")}}
    assert compare(good, earlier, data, start)["all"]["new"] == 1.0


def test_incomparable_bundles_give_the_reason(data: Dataset, tiny: Bundle) -> None:
    assert "not evaluated" in compare({}, tiny, data, data.split.test_from)["not_compared"]
    measured = json.loads(json.dumps(tiny.metrics))
    assert (
        "trained on the evaluation period"
        in compare(measured, tiny, data, data.split.valid_from)["not_compared"]
    )
    other = replace(data, about=data.about | {"name": "other"})
    assert "was made from tiny" in compare(measured, tiny, other, data.split.test_from)["not_compared"]


def test_warm_start_requires_a_bundle_with_weights(tiny: Bundle) -> None:
    with pytest.raises(DataError, match="no weights/ directory to start from"):
        WarmStart.of(Bundle(tiny.path / "nowhere", tiny.manifest))


@pytest.fixture
def copy(tiny: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(tiny.path, tmp_path / tiny.version))


class Payload:
    """An object that makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def paddle_pickle(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps({"out.weight": payload}, protocol=2))


def object_array(path: Path, payload: Payload) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        content = io.BytesIO()
        np.save(content, np.array([payload], dtype=object), allow_pickle=True)
        archive.writestr("out.weight.npy", content.getvalue())


@pytest.mark.parametrize("write", [paddle_pickle, object_array])
def test_pickle_in_weights_is_refused_and_not_executed(
    copy: Path, tmp_path: Path, write: Callable[[Path, Payload], None]
) -> None:
    marker = tmp_path / "executed"
    write(copy / "weights" / "ranker.npz", Payload(marker))
    with pytest.raises(BundleError, match=r"weights/ranker\.npz: "):
        WarmStart.of(resealed(copy))
    assert not marker.exists()


def test_compressed_weights_are_refused_before_they_fill_the_memory(copy: Path) -> None:
    with zipfile.ZipFile(copy / "weights" / "ranker.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("out.weight.npy", bytes(1 << 24))
    with pytest.raises(BundleError, match="its entries are larger than the file"):
        WarmStart.of(resealed(copy))


WRONG_WEIGHTS = {
    "a parameter is missing": (lambda state: state.popitem(), "is missing"),
    "another parameter": (lambda state: state.update(x=np.zeros(3, "f4")), "'x' is not expected"),
    "a wrong shape": (
        lambda state: state.update({"out.bias": np.zeros(2, "f4")}),
        r"out\.bias: shape \(2,\)",
    ),
    "a wrong type": (lambda state: state.update({"out.bias": np.zeros(1)}), r"out\.bias: float64, expected"),
}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_weights_of_another_network_are_refused(copy: Path, tiny: Bundle, case: str) -> None:
    change, reason = WRONG_WEIGHTS[case]
    state = dict(WarmStart.of(tiny).states["ranker"])
    change(state)
    save_weights(copy / "weights" / "ranker.npz", state)
    with pytest.raises(BundleError, match=rf"weights/ranker\.npz: .*{reason}"):
        WarmStart.of(resealed(copy))

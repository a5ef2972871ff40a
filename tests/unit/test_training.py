"""Training: reproducibility, resuming, and the sampling of examples."""

import signal
import subprocess
import sys
import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest

from ecrs.bundle import Bundle
from ecrs.domain.actions import ActionType
from ecrs.features.encoding import ABSENT, ITEM_TOWER_COLUMNS, OUT_OF_VOCABULARY, PADDING, USER_TOWER_COLUMNS
from ecrs_models.data.dataset import Dataset
from ecrs_models.data.log import Log
from ecrs_models.errors import DataError
from ecrs_models.export import bundle_writer
from ecrs_models.training import pipeline
from ecrs_models.training.sampling import (
    ITEMS_PER_BASKET,
    TowerBatch,
    TowerExamples,
    epoch_rows,
    false_negatives,
    tower_batch,
)
from ecrs_models.training.two_tower import in_batch_softmax
from ecrs_models.training.weights import load_weights, weights_path
from tests.tiny import tiny_data, tiny_settings

TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from ecrs_models.data.dataset import Dataset
from ecrs_models.training import pipeline
from tests.tiny import tiny_settings
data = Dataset.load(Path(sys.argv[1]))
pipeline.train(data, Path(sys.argv[2]), tiny_settings(data, tower_epochs=20), checkpoint_s=0)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(tiny_data(tmp_path_factory.mktemp("train") / "data"))


def weights(out: Path) -> dict[str, np.ndarray]:
    state = {}
    for name in pipeline.MODELS:
        for key, value in load_weights(weights_path(out, name)).items():
            state[f"{name}.{key}"] = value
    return state


def equal_weights(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def log_of(*rows: tuple[int, int, int], users: int = 2) -> Log:
    """Return a log of orders; each row is (user, item, ts)."""
    user, item, ts = np.array(rows).T
    kind = np.full(len(rows), int(ActionType.ORDER), dtype=np.int8)
    return Log.of(user.astype(np.int32), item.astype(np.int32), ts, kind, users)


def examples_of(log: Log, items: int = 10) -> TowerExamples:
    """Return examples in which the ids of a user or item are its number plus 2."""
    users = np.tile(np.arange(len(log.start) - 1)[:, None] + 2, (1, 7))
    return TowerExamples(log, users, np.tile(np.arange(items)[:, None] + 2, (1, 4)))


def test_weights_depend_on_the_seed_only(data: Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        pipeline.train(data, tmp_path / name, tiny_settings(data, seed))
    assert equal_weights(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal_weights(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_killed_training_resumes_to_the_same_weights(data: Dataset, tmp_path: Path) -> None:
    settings = tiny_settings(data, tower_epochs=20)
    pipeline.train(data, tmp_path / "whole", settings)

    killed = tmp_path / "killed"
    command = [sys.executable, "-c", TRAIN, str(data.path), str(killed)]
    with subprocess.Popen(command, env={"PYTHONPATH": ":".join(["", *sys.path])}) as process:
        while not (killed / "two_tower.checkpoint.npz").exists():
            assert process.poll() is None, "training ended before it wrote a checkpoint"
        process.send_signal(signal.SIGKILL)
    assert not (killed / "two_tower.npz").exists()

    pipeline.train(data, killed, settings)
    assert equal_weights(weights(tmp_path / "whole"), weights(killed))
    assert not list(killed.glob("*.checkpoint.npz"))


def test_other_settings_do_not_resume_an_old_checkpoint(data: Dataset, tmp_path: Path) -> None:
    pipeline.train(data, tmp_path, tiny_settings(data, seed=1))
    pipeline.train(data, tmp_path, tiny_settings(data, seed=2))
    assert pipeline.load(tmp_path).settings.seed == 2
    (tmp_path / "ranker.npz").unlink()
    with pytest.raises(DataError, match=r"ranker\.npz is missing: run `ecrs train`"):
        pipeline.load(tmp_path)


def test_export_refuses_data_that_was_not_trained_on(data: Dataset, tmp_path: Path) -> None:
    pipeline.train(data, tmp_path / "train", tiny_settings(data))
    other = Dataset.load(tiny_data(tmp_path / "other", seed=8))
    with pytest.raises(DataError, match="is not the data set that was used for training"):
        bundle_writer.export(pipeline.load(tmp_path / "train"), other, tmp_path / "bundles")


def test_bundle_trained_on_all_data_is_marked_as_not_measured(data: Dataset, tmp_path: Path) -> None:
    pipeline.train(data, tmp_path / "train", replace(tiny_settings(data), until=data.split.until))
    version = bundle_writer.export(pipeline.load(tmp_path / "train"), data, tmp_path / "bundles")
    metrics = Bundle.open(tmp_path / "bundles" / version).metrics
    assert metrics["not_measured"] == "the training used the whole log"


def test_no_actions_before_the_split_is_an_error(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no actions before 5"):
        pipeline.train(data, tmp_path, pipeline.TrainingSettings(until=5, window_s=5))


def test_items_first_seen_after_the_split_are_out_of_vocabulary(data: Dataset) -> None:
    until = data.split.valid_from
    encoder = pipeline.fit_encoder(data, until)
    before = set(data.items["sku"][np.unique(data.log.before(until).item)])
    assert set(encoder.vocabularies["sku"].ids) == before
    assert len(before) < data.items.height


def test_trained_bundle_beats_popularity(tiny: Bundle) -> None:
    tasks = tiny.metrics["tasks"]
    assert tasks["all"]["ECRS"]["recall@20"] > 2 * tasks["all"]["popularity"]["recall@20"]


def test_log_q_correction_reduces_popular_negatives() -> None:
    """With equal logits, an item weighs less as a negative the more often it is drawn."""
    logits = paddle.zeros([2, 2])
    logits.stop_gradient = False
    log_q = np.log(np.array([0.5, 0.01], dtype=np.float32))
    in_batch_softmax(logits, log_q, np.zeros((2, 2), dtype=bool)).backward()
    weight_as_negative = 2 * logits.grad.numpy()
    popular, rare = weight_as_negative[1, 0], weight_as_negative[0, 1]
    assert popular == pytest.approx(0.01 / 0.51, abs=1e-5)
    assert rare == pytest.approx(0.5 / 0.51, abs=1e-5)


def test_accidental_hits_and_same_basket_are_no_negatives() -> None:
    item, user = np.array([7, 7, 8, 9]), np.array([0, 1, 2, 2])
    batch = TowerBatch(np.zeros((3, 57)), user, np.zeros((4, 4)), item, np.zeros(4, dtype=np.float32))
    excluded = false_negatives(batch)
    assert np.argwhere(excluded).tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    logits = paddle.zeros([4, 4])
    logits.stop_gradient = False
    in_batch_softmax(logits, batch.log_q, excluded).backward()
    assert logits.grad.numpy()[excluded].max() < 1e-20


def test_history_ends_before_the_basket() -> None:
    log = log_of((0, 1, 10), (0, 2, 10), (0, 3, 20), (0, 4, 20), (0, 5, 30), (1, 6, 5))
    histories = log.histories(log.user, log.basket)
    known = [history[history != ABSENT].tolist() for history in histories]
    assert known == [[], [], [2, 1], [2, 1], [4, 3, 2, 1], []]


def test_log_sorts_actions_by_time() -> None:
    log = log_of((1, 6, 5), (0, 3, 20), (0, 1, 10), (0, 2, 10))
    assert log.item.tolist() == [1, 2, 3, 6]
    assert log.latest(np.array([0, 1]))[:, :3].tolist() == [[3, 2, 1], [6, ABSENT, ABSENT]]
    assert log.before(20).latest(np.array([0]))[0, :3].tolist() == [2, 1, ABSENT]


def test_epoch_samples_long_baskets_and_keeps_short_ones_whole() -> None:
    log = log_of(*((0, item % 10, 1) for item in range(30)), (1, 0, 5), (1, 1, 6))
    rows = epoch_rows(np.arange(len(log)), log.basket, 1000, np.random.default_rng(1))
    assert np.bincount(log.user[rows]).tolist() == [ITEMS_PER_BASKET, 2]
    assert len(set(rows.tolist())) == len(rows)
    assert len(epoch_rows(np.arange(len(log)), log.basket, 4, np.random.default_rng(1))) == 4


def test_id_dropout_simulates_new_users_and_new_products() -> None:
    rng = np.random.default_rng(3)
    rows = [
        (user, int(item), ts) for user in range(200) for ts in range(5) for item in rng.integers(10, size=2)
    ]
    examples = examples_of(log_of(*rows, users=200))
    batch = tower_batch(examples, np.arange(len(examples.log)), rng)
    no_id, no_history = batch.users[:, 0] == OUT_OF_VOCABULARY, (batch.users[:, 7:] == PADDING).all(axis=1)
    assert 0.25 < no_id.mean() < 0.35
    assert (no_id & no_history).any()
    assert 0.05 < (batch.items[:, 0] == OUT_OF_VOCABULARY).mean() < 0.15
    assert batch.users.shape[1] == len(USER_TOWER_COLUMNS)
    assert batch.items.shape[1] == len(ITEM_TOWER_COLUMNS)

"""Fits the models: a loop that shows where it is, can be killed, and goes on bit for bit.

The two-tower learns up to the first of the ranker's snapshots, then on to the end: its vectors propose
candidates at past snapshots, which must not know what came after.

OUT/
    train.json               settings and fingerprint of the data: what these weights are of
    vocabulary/*.txt
    early_towers.pdparams two_tower.pdparams ranker.pdparams
    candidates.npz quantiles.json teacher.npy   what the ranker learns from
    curves.npy
    *.checkpoint             while a model trains
"""

import hashlib
import json
import shutil
import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.utils import unique_name
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecrs.domain.clock import DAY_S
from ecrs.domain.entities import ITEM_FIELDS
from ecrs.features.encoding import ITEM_TOWER_COLUMNS, USER_TOWER_COLUMNS, Encoder
from ecrs.features.quantiles import Quantiles, ranker_cardinality
from ecrs_models.data.dataset import ACTIONS, PRODUCTS, USER_COLUMNS, USERS, Dataset
from ecrs_models.data.disk import writing_to
from ecrs_models.data.log import Log
from ecrs_models.errors import DataError
from ecrs_models.snapshots.snapshot import EncodedTables, NearestItems, Snapshot
from ecrs_models.training.distillation import teacher_predictions
from ecrs_models.training.loop import fit
from ecrs_models.training.rankers import RANKERS
from ecrs_models.training.ranking_examples import (
    ExampleUser,
    RankingExamples,
    example_users,
    position_precision,
    ranking_examples,
)
from ecrs_models.training.sampling import TowerExamples, epoch_rows, ranker_batch, tower_batch
from ecrs_models.training.settings import TrainingSettings
from ecrs_models.training.two_tower import TwoTower
from ecrs_models.training.warm_start import WarmStart

ABOUT = "train.json"
MODELS = ("early_towers", "two_tower", "ranker")


@dataclass(frozen=True)
class TrainedModels:
    """A finished training: its settings and both networks."""

    settings: TrainingSettings
    about: dict[str, Any]
    encoder: Encoder
    two_tower: TwoTower
    ranker: Any
    quantiles: Quantiles
    curves: np.ndarray
    digest: bytes
    path: Path


class _TowerJob:
    """Goes through `epoch_rows` of the log in batches."""

    def __init__(
        self, name: str, network: TwoTower, examples: TowerExamples, settings: TrainingSettings, epochs: int
    ) -> None:
        self.name, self.network, self.rate = name, network, settings.tower_rate
        self._examples, self._seed = examples, settings.seed
        self._limit, self._size = settings.rows_per_epoch, settings.tower_batch
        self._epoch, self._rows = -1, np.zeros(0, dtype=np.int64)
        self._per_epoch = -(-len(self._plan(0)) // self._size)
        self.steps = epochs * self._per_epoch

    def batch(self, step: int) -> tuple[Any, int]:
        epoch, part = divmod(step, self._per_epoch)
        rows = self._plan(epoch)[part * self._size : (part + 1) * self._size]
        return tower_batch(self._examples, rows, np.random.default_rng((self._seed, 1, step))), len(rows)

    def _plan(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, 0, epoch))
            self._epoch = epoch
            self._rows = epoch_rows(self._examples.rows, self._examples.log.basket, self._limit, rng)
        return self._rows


class _RankerJob:
    """Goes through the candidates in random order, epoch by epoch."""

    name = "ranker"

    def __init__(
        self,
        network: Any,
        rows: RankingExamples,
        labels: np.ndarray,
        tables: EncodedTables,
        settings: TrainingSettings,
    ) -> None:
        self.network, self.rate = network, settings.ranker_rate
        self._labels = labels
        self._rows, self._tables, self._seed, self._size = rows, tables, settings.seed, settings.ranker_batch
        self._per_epoch = -(-len(rows.taken) // self._size)
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)
        self.steps = settings.ranker_epochs * self._per_epoch

    def batch(self, step: int) -> tuple[Any, int]:
        epoch, part = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, 2, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self._rows.taken))
        rows = self._order[part * self._size : (part + 1) * self._size]
        rng = np.random.default_rng((self._seed, 3, step))
        return ranker_batch(self._rows, self._labels, self._tables, rows, rng), len(rows)


def train(
    data: Dataset,
    out: Path,
    settings: TrainingSettings,
    *,
    start: WarmStart | None = None,
    checkpoint_s: float = 10.0,
) -> None:
    """Train the models into `out`; goes on where an earlier run with the same settings stopped.

    With `start`, the weights are an earlier training's, and the towers learn what came since its end.
    A kill costs at most the last `checkpoint_s` seconds of a model, or the gathering of candidates.
    DataError if nothing happened before `settings.until`, if there are too few actions to learn ranking from,
    or if `out` cannot be written.
    """
    with writing_to(out):
        _train(data, out, settings, start, checkpoint_s)


def _train(
    data: Dataset, out: Path, settings: TrainingSettings, start: WarmStart | None, checkpoint_s: float
) -> None:
    log = data.log.before(settings.until)
    if not len(log):
        raise DataError(f"{data.path}: no actions before {settings.until}")
    about = {"settings": asdict(settings), "data": data.name, "fingerprint": fingerprint(data)}
    _claim(out, about)
    encoder = fit_encoder(data, settings.until)
    encoder.save(out / "vocabulary")
    tables = EncodedTables.of(data, encoder)
    two_tower, ranker = networks(encoder, settings)
    since = start.until if start else 0
    cutoffs = past_cutoffs(log, settings)
    with _progress() as progress:
        for name, end, epochs in (
            ("early_towers", cutoffs[-1], settings.early_epochs),
            ("two_tower", settings.until, settings.tower_epochs),
        ):
            if not _weights(out, name, two_tower):
                if start:
                    start.give(name, two_tower, encoder)
                examples = TowerExamples(log.before(end), tables.users, tables.items, since)
                fit(_TowerJob(name, two_tower, examples, settings, epochs), out, progress, checkpoint_s)
            if name == "early_towers" and not (out / "curves.npy").exists():
                _gather(log, tables, two_tower, cutoffs, settings, out, progress)
        if not _weights(out, "ranker", ranker):
            if start:
                start.give("ranker", ranker, encoder)
            rows = RankingExamples(**np.load(out / "candidates.npz"))
            labels = _labels(rows, settings, out, progress)
            fit(_RankerJob(ranker, rows, labels, tables, settings), out, progress, checkpoint_s)


def past_cutoffs(log: Log, settings: TrainingSettings) -> list[int]:
    """The snapshots that the ranker learns from, the latest first: each leaves a window for its labels, and
    a quarter of the log, at least a window, before it. DataError if there is none."""
    first = int(log.ts.min())
    earliest = first + max(settings.window_s, (settings.until - first) // 4)
    cutoffs = [settings.until - settings.window_s * number for number in range(1, settings.snapshots + 1)]
    cutoffs = [cutoff for cutoff in cutoffs if cutoff >= earliest]
    if not cutoffs:
        days = (settings.until - first) / DAY_S
        least = 2 * settings.window_s / DAY_S
        raise DataError(f"{days:.0f} days of actions are too few for the ranker: at least {least:.0f}")
    return cutoffs


def _gather(
    log: Log,
    tables: EncodedTables,
    towers: TwoTower,
    cutoffs: Sequence[int],
    settings: TrainingSettings,
    out: Path,
    progress: Progress,
) -> None:
    """Ask for the users at past snapshots; write what recall is right about, and the ranker's examples."""
    bar = progress.add_task("candidates", total=len(cutoffs) + 1, loss="", rate="")
    rng = np.random.default_rng((settings.seed, 4))
    towers.eval()
    vectors = in_batches(towers.item_tower, tables.items)
    gathered: list[tuple[Snapshot, list[ExampleUser]]] = []
    for cutoff in cutoffs:
        snapshot = Snapshot.of(log, cutoff, tables, settings.tables)
        later = log.purchases().between(cutoff, cutoff + settings.window_s)
        nearest = NearestItems(vectors, snapshot.sold)
        user_vectors = partial(in_batches, towers.user_tower)
        asked = list(example_users(snapshot, later, nearest, user_vectors, settings.candidates, rng))
        gathered.append((snapshot, asked))
        progress.advance(bar)
    curves = position_precision(gathered)
    gathered = [(snapshot.with_curves(curves), asked) for snapshot, asked in gathered]
    rows, quantiles = ranking_examples(gathered, settings.candidates, rng)
    np.savez(out / "candidates.npz", **rows.__dict__)
    quantiles.save(out / "quantiles.json")
    draft = out / ".curves.npy"
    np.save(draft, curves)
    draft.replace(out / "curves.npy")  # the last file: once it is there, the others are complete
    progress.advance(bar)


def _labels(rows: RankingExamples, settings: TrainingSettings, out: Path, progress: Progress) -> np.ndarray:
    """What the ranker is to say of each row, float32 (N,): what was taken, and what the teacher thinks."""
    path = out / "teacher.npy"
    if not path.exists():
        bar = progress.add_task("teacher", total=settings.teacher_rounds, loss="", rate="")
        said = teacher_predictions(
            rows, settings.teacher_rounds, settings.seed, lambda: progress.advance(bar)
        )
        draft = path.with_name(".teacher.npy")
        np.save(draft, said)
        draft.replace(path)
    share = settings.teacher_share
    return (share * np.load(path) + (1 - share) * rows.taken).astype(np.float32)


def in_batches(network: Any, ids: np.ndarray, size: int = 4096) -> np.ndarray:
    """The network's outputs for int64 (N, columns), float32 (N, width)."""
    with paddle.no_grad():
        parts = [
            network(paddle.to_tensor(ids[start : start + size])).numpy() for start in range(0, len(ids), size)
        ]
    return np.concatenate(parts)


def load(out: Path) -> TrainedModels:
    """A finished training; DataError if it is not there or not finished."""
    try:
        about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
        settings = TrainingSettings.read(about["settings"])
        encoder = Encoder.load(out / "vocabulary")
        two_tower, ranker = networks(encoder, settings)
        quantiles, curves = Quantiles.load(out / "quantiles.json"), np.load(out / "curves.npy")
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, network in (("two_tower", two_tower), ("ranker", ranker)):
            path = out / f"{name}.pdparams"
            digest.update(path.read_bytes())
            network.set_state_dict(paddle.load(str(path)))
            network.eval()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: run `ecrs train` to its end first") from error
    return TrainedModels(settings, about, encoder, two_tower, ranker, quantiles, curves, digest.digest(), out)


def fit_encoder(data: Dataset, until: int) -> Encoder:
    """Vocabularies of the users and items that occur before `until`.

    What is in the tables alone stays out of vocabulary: an id of its own would have an embedding
    that nothing trained, the out-of-vocabulary one is trained for the case.
    """
    log = data.log.before(until)
    users, items = data.users[np.unique(log.user)], data.items[np.unique(log.item)]
    columns = {name: users[name] for name in USER_COLUMNS} | {name: items[name] for name in ITEM_FIELDS}
    return Encoder.build(columns)


def networks(encoder: Encoder, settings: TrainingSettings) -> tuple[TwoTower, Any]:
    """Both networks with their initial weights: the same for the same seed and vocabulary sizes."""
    with unique_name.guard():  # parameter names, which the optimizer's state goes by, count from 0
        paddle.seed(settings.seed)
        two_tower = TwoTower(encoder.cardinality(USER_TOWER_COLUMNS), encoder.cardinality(ITEM_TOWER_COLUMNS))
        return two_tower, RANKERS[settings.ranker](ranker_cardinality(encoder))


def fingerprint(data: Dataset) -> str:
    """sha256 over the data set's files."""
    digest = hashlib.sha256()
    for name in (USERS, PRODUCTS, ACTIONS):
        with open(data.path / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _weights(out: Path, name: str, network: Any) -> bool:
    """Load a finished model's weights, if it is finished."""
    path = out / f"{name}.pdparams"
    if not path.exists():
        return False
    network.set_state_dict(paddle.load(str(path)))
    return True


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Make `out` this training's: what another training left there is removed."""
    path = out / ABOUT
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != about:
        for name in MODELS:
            (out / f"{name}.pdparams").unlink(missing_ok=True)
            (out / f"{name}.checkpoint").unlink(missing_ok=True)
        for name in ("candidates.npz", "quantiles.json", "curves.npy", "teacher.npy"):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "vocabulary", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f".{ABOUT}"
    draft.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        *(TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn()),
        TextColumn("loss {task.fields[loss]}  {task.fields[rate]} rows/s"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns) as progress:
        yield progress

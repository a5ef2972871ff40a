"""Fits the models: a loop that shows where it is, can be killed, and goes on bit for bit.

The two-tower learns up to the first of the ranker's moments, then on to the end: its vectors propose
candidates at past moments, which must not know what came after.

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
import math
import shutil
import time
import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from paddle.utils import unique_name
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecrs.clock import DAY_S
from ecrs.domain import ITEM_FIELDS
from ecrs.features import ITEM_TOWER_COLUMNS, USER_TOWER_COLUMNS, Encoder
from ecrs.ranking_features import Quantiles, ranker_cardinality
from ecrs_models.candidates import (
    Asked,
    CandidateSettings,
    RankerRows,
    asked_at,
    candidate_rows,
    hit_curves,
)
from ecrs_models.dataset import ACTIONS, PRODUCTS, USER_COLUMNS, USERS, Dataset, Log
from ecrs_models.errors import DataError
from ecrs_models.moments import Moment, Nearest, Tables, TableSettings
from ecrs_models.rankers import RANKERS
from ecrs_models.sampling import Examples, epoch_rows, ranker_batch, tower_batch
from ecrs_models.teacher import taught
from ecrs_models.two_tower import TwoTower
from ecrs_models.warm import Start

ABOUT = "train.json"
MODELS = ("early_towers", "two_tower", "ranker")


@dataclass(frozen=True)
class Settings:
    """What decides the weights, besides the data.

    `until`: Unix seconds, exclusive. `moments`: how many past moments the ranker learns from,
    `window_s` apart, each with the labels of the `window_s` after it; fewer where the data are short.
    """

    until: int
    window_s: int
    seed: int = 1
    tower_epochs: int = 2
    early_epochs: int = 1
    ranker_epochs: int = 3
    rows_per_epoch: int = 600_000
    tower_batch: int = 1024
    ranker_batch: int = 1024
    tower_rate: float = 2e-3
    ranker_rate: float = 2e-3
    teacher_rounds: int = 200
    teacher_share: float = 0.7
    """How much of a label is the teacher's word, the rest being what was taken."""
    ranker: str = "deepfm"
    start: str = ""
    """Version of the bundle that the weights start from; empty: from nothing."""
    moments: int = 4
    tables: TableSettings = field(default_factory=TableSettings)
    candidates: CandidateSettings = field(default_factory=CandidateSettings)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> "Settings":
        """From `asdict`."""
        tables, candidates = TableSettings(**raw["tables"]), CandidateSettings(**raw["candidates"])
        return cls(**{**raw, "tables": tables, "candidates": candidates})


@dataclass(frozen=True)
class Trained:
    """A finished training: its settings and both networks."""

    settings: Settings
    about: dict[str, Any]
    encoder: Encoder
    two_tower: TwoTower
    ranker: Any
    quantiles: Quantiles
    curves: np.ndarray
    digest: bytes
    path: Path


class Job(Protocol):
    """One model's training, step by step; a step depends on the seed and its number alone."""

    name: str
    network: Any
    rate: float
    steps: int

    def batch(self, step: int) -> tuple[Any, int]:
        """The network's input for a step and how many rows it has."""


class _TowerJob:
    """Goes through `epoch_rows` of the log in batches."""

    def __init__(
        self, name: str, network: TwoTower, examples: Examples, settings: Settings, epochs: int
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
        self, network: Any, rows: RankerRows, labels: np.ndarray, tables: Tables, settings: Settings
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
    data: Dataset, out: Path, settings: Settings, *, start: Start | None = None, checkpoint_s: float = 10.0
) -> None:
    """Train the models into `out`; goes on where an earlier run with the same settings stopped.

    With `start`, the weights are an earlier training's, and the towers learn what came since its end.
    A kill costs at most the last `checkpoint_s` seconds of a model, or the gathering of candidates.
    DataError if nothing happened before `settings.until`, or too little to learn ranking from.
    """
    log = data.log.before(settings.until)
    if not len(log):
        raise DataError(f"{data.path}: no actions before {settings.until}")
    about = {"settings": asdict(settings), "data": data.name, "fingerprint": fingerprint(data)}
    _claim(out, about)
    encoder = fit_encoder(data, settings.until)
    encoder.save(out / "vocabulary")
    tables = Tables.of(data, encoder)
    two_tower, ranker = networks(encoder, settings)
    since = start.until if start else 0
    moments = past_moments(log, settings)
    with _progress() as progress:
        for name, end, epochs in (
            ("early_towers", moments[-1], settings.early_epochs),
            ("two_tower", settings.until, settings.tower_epochs),
        ):
            if not _weights(out, name, two_tower):
                if start:
                    start.give(name, two_tower, encoder)
                examples = Examples(log.before(end), tables.users, tables.items, since)
                fit(_TowerJob(name, two_tower, examples, settings, epochs), out, progress, checkpoint_s)
            if name == "early_towers" and not (out / "curves.npy").exists():
                _gather(log, tables, two_tower, moments, settings, out, progress)
        if not _weights(out, "ranker", ranker):
            if start:
                start.give("ranker", ranker, encoder)
            rows = RankerRows(**np.load(out / "candidates.npz"))
            labels = _labels(rows, settings, out, progress)
            fit(_RankerJob(ranker, rows, labels, tables, settings), out, progress, checkpoint_s)


def past_moments(log: Log, settings: Settings) -> list[int]:
    """The moments that the ranker learns from, the latest first: each leaves a window for its labels, and
    a quarter of the log, at least a window, before it. DataError if there is none."""
    first = int(log.ts.min())
    earliest = first + max(settings.window_s, (settings.until - first) // 4)
    moments = [settings.until - settings.window_s * number for number in range(1, settings.moments + 1)]
    moments = [moment for moment in moments if moment >= earliest]
    if not moments:
        days = (settings.until - first) / DAY_S
        least = 2 * settings.window_s / DAY_S
        raise DataError(f"{days:.0f} days of actions are too few for the ranker: at least {least:.0f}")
    return moments


def _gather(
    log: Log,
    tables: Tables,
    towers: TwoTower,
    moments: Sequence[int],
    settings: Settings,
    out: Path,
    progress: Progress,
) -> None:
    """Ask for the users at past moments; write what recall is right about, and the ranker's examples."""
    bar = progress.add_task("candidates", total=len(moments) + 1, loss="", rate="")
    rng = np.random.default_rng((settings.seed, 4))
    towers.eval()
    vectors = in_batches(towers.item_tower, tables.items)
    gathered: list[tuple[Moment, list[Asked]]] = []
    for now in moments:
        moment = Moment.of(log, now, tables, settings.tables)
        later = log.purchases().between(now, now + settings.window_s)
        nearest = Nearest(vectors, moment.sold)
        user_vectors = partial(in_batches, towers.user_tower)
        asked = list(asked_at(moment, later, nearest, user_vectors, settings.candidates, rng))
        gathered.append((moment, asked))
        progress.advance(bar)
    curves = hit_curves(gathered)
    gathered = [(moment.with_curves(curves), asked) for moment, asked in gathered]
    rows, quantiles = candidate_rows(gathered, settings.candidates, rng)
    np.savez(out / "candidates.npz", **rows.__dict__)
    quantiles.save(out / "quantiles.json")
    np.save(out / "curves.npy", curves)  # the last one: it says that all of it is there
    progress.advance(bar)


def _labels(rows: RankerRows, settings: Settings, out: Path, progress: Progress) -> np.ndarray:
    """What the ranker is to say of each row, float32 (N,): what was taken, and what the teacher thinks."""
    path = out / "teacher.npy"
    if not path.exists():
        bar = progress.add_task("teacher", total=settings.teacher_rounds, loss="", rate="")
        said = taught(rows, settings.teacher_rounds, settings.seed, lambda: progress.advance(bar))
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


def load(out: Path) -> Trained:
    """A finished training; DataError if it is not there or not finished."""
    try:
        about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
        settings = Settings.read(about["settings"])
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
    return Trained(settings, about, encoder, two_tower, ranker, quantiles, curves, digest.digest(), out)


def fit_encoder(data: Dataset, until: int) -> Encoder:
    """Vocabularies of the users and items that occur before `until`.

    What is in the tables alone stays out of vocabulary: an id of its own would have an embedding
    that nothing trained, the out-of-vocabulary one is trained for the case.
    """
    log = data.log.before(until)
    users, items = data.users[np.unique(log.user)], data.items[np.unique(log.item)]
    columns = {name: users[name] for name in USER_COLUMNS} | {name: items[name] for name in ITEM_FIELDS}
    return Encoder.build(columns)


def networks(encoder: Encoder, settings: Settings) -> tuple[TwoTower, Any]:
    """Both networks with their initial weights: the same for the same seed and vocabulary sizes."""
    with unique_name.guard():  # parameter names, which the optimizer's state goes by, count from 0
        paddle.seed(settings.seed)
        two_tower = TwoTower(encoder.cardinality(USER_TOWER_COLUMNS), encoder.cardinality(ITEM_TOWER_COLUMNS))
        return two_tower, RANKERS[settings.ranker](ranker_cardinality(encoder))


def fit(job: Job, out: Path, progress: Progress, checkpoint_s: float) -> None:
    """Run the job's steps from its checkpoint, if there is one, to its end; write its weights."""
    checkpoint = out / f"{job.name}.checkpoint"
    with unique_name.guard():  # Adam's state goes by names too, made at its first step
        optimizer = paddle.optimizer.AdamW(job.rate, parameters=job.network.parameters(), weight_decay=0.01)
        step = _resume(checkpoint, job.network, optimizer)
        bar = progress.add_task(job.name, total=job.steps, completed=step, loss="", rate="")
        job.network.train()
        begun, rows, saved, mean = time.monotonic(), 0, time.monotonic(), None
        while step < job.steps:
            batch, size = job.batch(step)
            optimizer.set_lr(job.rate * 0.5 * (1 + math.cos(math.pi * step / job.steps)))
            paddle.seed(step)  # of the dropout: a resumed step draws what it would have drawn
            loss = job.network.loss(batch)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            step, rows, value = step + 1, rows + size, float(loss)
            mean = value if mean is None else 0.98 * mean + 0.02 * value
            now = time.monotonic()
            progress.update(bar, completed=step, loss=f"{mean:.4f}", rate=f"{rows / (now - begun):,.0f}")
            if now - saved >= checkpoint_s:
                adam = optimizer.state_dict()
                _save(checkpoint, {"step": step, "network": job.network.state_dict(), "adam": adam})
                saved = now
    _save(out / f"{job.name}.pdparams", job.network.state_dict())
    checkpoint.unlink(missing_ok=True)


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
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _resume(checkpoint: Path, network: Any, optimizer: Any) -> int:
    """Put the checkpoint's state into network and optimizer; the step to go on with."""
    if not checkpoint.is_file():
        return 0
    state = paddle.load(str(checkpoint))
    network.set_state_dict(state["network"])
    optimizer.set_state_dict(state["adam"])
    return int(state["step"])


def _save(path: Path, state: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.new")
    paddle.save(state, str(draft))
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

"""Fits the models: a loop that shows where it is, can be killed, and goes on bit for bit.

OUT/
    train.json               settings and fingerprint of the data: what these weights are of
    vocabulary/*.txt
    two_tower.pdparams ranker.pdparams
    *.checkpoint             while a model trains
"""

import hashlib
import json
import shutil
import time
import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from paddle.utils import unique_name
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecrs.domain import ITEM_FIELDS
from ecrs.features import ITEM_TOWER_COLUMNS, RANKER_COLUMNS, USER_TOWER_COLUMNS, Encoder
from ecrs_models.dataset import ACTIONS, PRODUCTS, USER_COLUMNS, USERS, Dataset
from ecrs_models.deepfm import DeepFM
from ecrs_models.errors import DataError
from ecrs_models.sampling import Examples, epoch_rows, ranker_batch, tower_batch
from ecrs_models.two_tower import TwoTower

ABOUT = "train.json"
MODELS = ("two_tower", "ranker")


@dataclass(frozen=True)
class Settings:
    """What decides the weights, besides the data. `until`: Unix seconds, exclusive."""

    until: int
    seed: int = 1
    tower_epochs: int = 2
    ranker_epochs: int = 1
    rows_per_epoch: int = 600_000
    tower_batch: int = 1024
    ranker_batch: int = 2048
    tower_rate: float = 2e-3
    ranker_rate: float = 2e-3


@dataclass(frozen=True)
class Trained:
    """A finished training: its settings and both networks."""

    settings: Settings
    about: dict[str, Any]
    encoder: Encoder
    two_tower: TwoTower
    ranker: DeepFM
    digest: bytes


class Job(Protocol):
    """One model's training, step by step; a step depends on the seed and its number alone."""

    name: str
    network: Any
    rate: float
    steps: int

    def batch(self, step: int) -> tuple[Any, int]:
        """The network's input for a step and how many rows it has."""


class _EpochJob:
    """A job that goes through `epoch_rows` in batches of `size` rows of the log."""

    def __init__(
        self,
        name: str,
        network: Any,
        examples: Examples,
        draw: Callable[[Examples, np.ndarray, np.random.Generator], Any],
        *,
        seed: int,
        epochs: int,
        limit: int,
        size: int,
        rate: float,
    ) -> None:
        self.name, self.network, self.rate = name, network, rate
        self._examples, self._draw, self._seed, self._limit, self._size = examples, draw, seed, limit, size
        self._epoch, self._rows = -1, np.zeros(0, dtype=np.int64)
        self._per_epoch = -(-len(self._plan(0)) // size)
        self.steps = epochs * self._per_epoch

    def batch(self, step: int) -> tuple[Any, int]:
        epoch, part = divmod(step, self._per_epoch)
        rows = self._plan(epoch)[part * self._size : (part + 1) * self._size]
        return self._draw(self._examples, rows, np.random.default_rng((self._seed, 1, step))), len(rows)

    def _plan(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, 0, epoch))
            self._epoch = epoch
            self._rows = epoch_rows(self._examples.rows, self._examples.log.basket, self._limit, rng)
        return self._rows


def train(data: Dataset, out: Path, settings: Settings, *, checkpoint_s: float = 10.0) -> None:
    """Train both models into `out`; goes on where an earlier run with the same settings stopped.

    A kill costs at most the last `checkpoint_s` seconds.

    DataError if nothing happened before `settings.until`.
    """
    log = data.log.before(settings.until)
    if not len(log):
        raise DataError(f"{data.path}: no actions before {settings.until}")
    about = {"settings": asdict(settings), "data": data.name, "fingerprint": fingerprint(data)}
    _claim(out, about)
    encoder = fit_encoder(data, settings.until)
    encoder.save(out / "vocabulary")
    examples = Examples(
        log, encoder.user_table(data.users.to_dict()), encoder.item_table(data.items.to_dict())
    )
    two_tower, ranker = networks(encoder, settings.seed)
    ranker.start_from(RANKER_COLUMNS.index("sku"), examples.log_popularity(len(encoder.vocabularies["sku"])))
    common: dict[str, Any] = {"seed": settings.seed, "limit": settings.rows_per_epoch}
    jobs = (
        _EpochJob("two_tower", two_tower, examples, tower_batch, epochs=settings.tower_epochs,
                  size=settings.tower_batch, rate=settings.tower_rate, **common),
        _EpochJob("ranker", ranker, examples, ranker_batch, epochs=settings.ranker_epochs,
                  size=settings.ranker_batch, rate=settings.ranker_rate, **common),
    )  # fmt: skip
    with _progress() as progress:
        for job in jobs:
            if not (out / f"{job.name}.pdparams").exists():
                fit(job, out, progress, checkpoint_s)


def load(out: Path) -> Trained:
    """A finished training; DataError if it is not there or not finished."""
    try:
        about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
        settings = Settings(**about["settings"])
        encoder = Encoder.load(out / "vocabulary")
        two_tower, ranker = networks(encoder, settings.seed)
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, network in (("two_tower", two_tower), ("ranker", ranker)):
            path = out / f"{name}.pdparams"
            digest.update(path.read_bytes())
            network.set_state_dict(paddle.load(str(path)))
            network.eval()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: run `ecrs train` to its end first") from error
    return Trained(settings, about, encoder, two_tower, ranker, digest.digest())


def fit_encoder(data: Dataset, until: int) -> Encoder:
    """Vocabularies of the users and items that occur before `until`.

    What is in the tables alone stays out of vocabulary: an id of its own would have an embedding
    that nothing trained, the out-of-vocabulary one is trained for the case.
    """
    log = data.log.before(until)
    users, items = data.users[np.unique(log.user)], data.items[np.unique(log.item)]
    columns = {name: users[name] for name in USER_COLUMNS} | {name: items[name] for name in ITEM_FIELDS}
    return Encoder.build(columns)


def networks(encoder: Encoder, seed: int) -> tuple[TwoTower, DeepFM]:
    """Both networks with their initial weights: the same for the same seed and vocabulary sizes."""
    with unique_name.guard():  # parameter names, which the optimizer's state goes by, count from 0
        paddle.seed(seed)
        two_tower = TwoTower(encoder.cardinality(USER_TOWER_COLUMNS), encoder.cardinality(ITEM_TOWER_COLUMNS))
        return two_tower, DeepFM(encoder.cardinality(RANKER_COLUMNS))


def fit(job: Job, out: Path, progress: Progress, checkpoint_s: float) -> None:
    """Run the job's steps from its checkpoint, if there is one, to its end; write its weights."""
    checkpoint = out / f"{job.name}.checkpoint"
    with unique_name.guard():  # Adam's state goes by names too, made at its first step
        optimizer = paddle.optimizer.Adam(job.rate, parameters=job.network.parameters())
        step = _resume(checkpoint, job.network, optimizer)
        bar = progress.add_task(job.name, total=job.steps, completed=step, loss="", rate="")
        job.network.train()
        begun, rows, saved, mean = time.monotonic(), 0, time.monotonic(), None
        while step < job.steps:
            batch, size = job.batch(step)
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


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Make `out` this training's: what another training left there is removed."""
    path = out / ABOUT
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != about:
        for name in MODELS:
            (out / f"{name}.pdparams").unlink(missing_ok=True)
            (out / f"{name}.checkpoint").unlink(missing_ok=True)
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
        *(TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn()),
        TextColumn("loss {task.fields[loss]}  {task.fields[rate]} rows/s"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns) as progress:
        yield progress

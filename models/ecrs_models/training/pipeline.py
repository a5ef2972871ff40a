"""Trains the models of a bundle. An interrupted run continues where it stopped.

There are two sets of towers. The early towers are trained on the log before the earliest of the ranker's
snapshots, because their vectors retrieve the candidates of these snapshots and must not contain information
from later actions. The served towers start from the weights of the early towers and are trained on all of
the log, in a worker process, while the ranker is trained in this one.

OUT/
    train.json               settings, and the fingerprint of the data
    vocabulary/*.txt
    early_towers.npz two_tower.npz ranker.npz   weights
    examples.npz quantiles.json curves.npy      the ranker's examples, quantiles, position-precision curves
    teacher.npy                                 the teacher model's predictions for the examples
    *.checkpoint.npz                            while a model is trained
"""

import hashlib
import json
import shutil
import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.domain.clock import DAY_S
from ecrs.domain.entities import ITEM_FIELDS
from ecrs.features.encoding import Encoder
from ecrs.features.quantiles import Quantiles
from ecrs_models.data.dataset import USER_COLUMNS, Dataset
from ecrs_models.data.disk import writing_to
from ecrs_models.data.log import Log
from ecrs_models.errors import DataError
from ecrs_models.parallel import Workers, workers
from ecrs_models.progress import Progress, Step, progress
from ecrs_models.snapshots.snapshot import EncodedTables
from ecrs_models.training.distillation import teacher_predictions
from ecrs_models.training.jobs import RankerJob, TowerJob
from ecrs_models.training.loop import checkpoint_path, fit
from ecrs_models.training.networks import new_networks
from ecrs_models.training.rankers import RankerNetwork
from ecrs_models.training.ranking_examples import RankingExamples, position_precision
from ecrs_models.training.sampling import TowerExamples
from ecrs_models.training.settings import TrainingSettings
from ecrs_models.training.two_tower import TwoTower
from ecrs_models.training.warm_start import WarmStart
from ecrs_models.training.weights import load_weights, save_weights, weights_path
from ecrs_models.training.worker import TrainingWorker

ABOUT = "train.json"
MODELS = ("early_towers", "two_tower", "ranker")
EXAMPLES = ("examples.npz", "quantiles.json", "curves.npy")
"""Files of the ranker's examples. Once the last one exists, all are complete."""
TEACHER = "teacher.npy"
WARM_TOWERS = "warm_towers"
"""Weights from which the served towers start after a warm start, instead of those of the early towers."""
QUANTILE_ROWS = 200_000
"""Number of examples from whose features the quantiles are estimated."""


@dataclass(frozen=True)
class TrainedModels:
    """A finished training.

    `about`: content of train.json; `curves`, float32 (CHANNELS, DEPTH): position-precision curves; `digest`:
    a hash of settings and weights; `path`: the training's directory.
    """

    settings: TrainingSettings
    about: dict[str, Any]
    encoder: Encoder
    two_tower: TwoTower
    ranker: RankerNetwork
    quantiles: Quantiles
    curves: np.ndarray
    digest: bytes
    path: Path


def train(
    data: Dataset,
    out: Path,
    settings: TrainingSettings,
    *,
    start: WarmStart | None = None,
    checkpoint_s: float = 10.0,
) -> None:
    """Train the models in `out`, continuing an earlier run with the same settings.

    With `start`, training begins with the weights of an earlier bundle, and the towers are trained only on
    actions since the end of that bundle's training. A killed run loses at most `checkpoint_s` seconds of
    each model, and the ranker's examples if they were not complete. Raises DataError if there are no actions
    before `settings.until`, if the log is too short for the ranker's snapshots, or if `out` cannot be
    written.
    """
    with writing_to(out):
        _train(data, out, settings, start, checkpoint_s)


def _train(
    data: Dataset, out: Path, settings: TrainingSettings, start: WarmStart | None, checkpoint_s: float
) -> None:
    log = data.log.before(settings.until)
    if not len(log):
        raise DataError(f"{data.path}: no actions before {settings.until}")
    _claim(out, {"settings": asdict(settings), "data": data.name, "fingerprint": data.fingerprint()})
    encoder = fit_encoder(data, settings.until)
    encoder.save(out / "vocabulary")
    cutoffs = past_cutoffs(log, settings)
    tables = EncodedTables.of(data, encoder)
    run = _Run(log, tables, encoder, cutoffs, settings, out, start, checkpoint_s)
    with (
        progress() as display,
        workers(len(log), TrainingWorker, log, tables, encoder, settings, out) as helpers,
    ):
        run.early_towers_and_examples(display, helpers)
        run.teacher(display)
        towers = run.towers(display, helpers)
        run.ranker(display)
        towers()


class _Run:
    """The steps of one training. Each step does nothing if its output files exist."""

    def __init__(
        self,
        log: Log,
        tables: EncodedTables,
        encoder: Encoder,
        cutoffs: Sequence[int],
        settings: TrainingSettings,
        out: Path,
        start: WarmStart | None,
        checkpoint_s: float,
    ) -> None:
        self._log, self._tables, self._encoder, self._cutoffs = log, tables, encoder, cutoffs
        self._settings, self._out = settings, out
        self._start, self._checkpoint_s = start, checkpoint_s
        self._since = start.until if start else 0

    def early_towers_and_examples(self, progress: Progress, helpers: Workers) -> None:
        """Train the early towers while the workers compute the snapshots' tables; then build the examples."""
        complete = (self._out / EXAMPLES[-1]).exists()
        prepared = [] if complete else self._each(helpers, "prepare")
        if not weights_path(self._out, "early_towers").exists():
            self._fit_early_towers(progress)
        if not complete:
            step = progress.step("examples", 4 * len(self._cutoffs))
            self._gather(prepared, helpers, step)

    def teacher(self, progress: Progress) -> None:
        """Train the teacher model, if the settings have one. It uses every core, so nothing else runs."""
        path, rounds = self._out / TEACHER, self._settings.teacher_rounds
        if not rounds or path.exists() or weights_path(self._out, "ranker").exists():
            return
        step = progress.step("teacher", rounds)
        draft = path.with_name(f".{TEACHER}")
        np.save(draft, teacher_predictions(self._examples(), rounds, self._settings.seed, step.advance))
        draft.replace(path)

    def towers(self, progress: Progress, helpers: Workers) -> Any:
        """Start training the served towers in a worker. Returns a function that waits for them."""
        if weights_path(self._out, "two_tower").exists():
            return lambda: None
        start = "early_towers"
        if self._start:
            start = WARM_TOWERS
            two_tower, _ = new_networks(self._encoder, self._settings)
            self._start.load_into("two_tower", two_tower, self._encoder)
            save_weights(weights_path(self._out, start), two_tower.state_dict())
        step = progress.step("two_tower", 1)
        arguments = ("two_tower", start, self._settings.until, self._settings.tower_epochs)
        future = helpers.call(0, "fit_towers", *arguments, self._since, self._checkpoint_s)
        future.add_done_callback(lambda _: step.advance())
        return future.result

    def ranker(self, progress: Progress) -> None:
        """Train the ranker on targets that mix the labels with the teacher model's predictions."""
        if weights_path(self._out, "ranker").exists():
            return
        _, network = new_networks(self._encoder, self._settings)
        if self._start:
            self._start.load_into("ranker", network, self._encoder)
        examples = self._examples()
        targets = examples.label.astype(np.float32)
        if self._settings.teacher_rounds:
            share = self._settings.teacher_share
            targets = share * np.load(self._out / TEACHER) + (1 - share) * targets
        job = RankerJob(network, examples, targets, self._tables, self._settings)
        fit(job, self._out, progress.step("ranker", job.steps), self._checkpoint_s)

    def _fit_early_towers(self, progress: Progress) -> None:
        two_tower, _ = new_networks(self._encoder, self._settings)
        if self._start:
            self._start.load_into("early_towers", two_tower, self._encoder)
        log = self._log.before(self._cutoffs[-1])
        examples = TowerExamples(log, self._tables.users, self._tables.items, self._since)
        epochs, rows = self._settings.early_epochs, self._settings.early_rows
        job = TowerJob("early_towers", two_tower, examples, self._settings, epochs, rows)
        fit(job, self._out, progress.step("early_towers", job.steps), self._checkpoint_s)

    def _gather(self, prepared: Sequence[Any], helpers: Workers, step: Step) -> None:
        """Build the ranker's examples at every snapshot, and write them.

        `prepared` are the futures of the workers' `prepare`.
        """

        def call(method: str, *arguments: Any) -> list[Any]:
            return wait(self._each(helpers, method, *arguments))

        def wait(futures: Sequence[Any]) -> list[Any]:
            results = []
            for future in futures:
                results.append(future.result())
                step.advance()
            return results

        wait(prepared)
        hits, filled = zip(*call("retrieve", "early_towers"), strict=True)
        curves = position_precision(sum(hits), sum(filled))
        features = np.concatenate(call("draw", curves, QUANTILE_ROWS // len(self._cutoffs)))
        quantiles = Quantiles.fit(features)
        examples = RankingExamples.concatenate(call("encode", quantiles))
        np.savez(self._out / "examples.npz", **vars(examples))
        quantiles.save(self._out / "quantiles.json")
        draft = self._out / ".curves.npy"
        np.save(draft, curves)
        draft.replace(self._out / EXAMPLES[-1])

    def _each(self, helpers: Workers, method: str, *arguments: Any) -> list[Any]:
        """Call a method of the workers for every snapshot. A snapshot always goes to the same worker."""
        return [
            helpers.call(number, method, cutoff, *arguments) for number, cutoff in enumerate(self._cutoffs)
        ]

    def _examples(self) -> RankingExamples:
        return RankingExamples(**np.load(self._out / "examples.npz"))


def past_cutoffs(log: Log, settings: TrainingSettings) -> list[int]:
    """Return the cutoffs of the ranker's snapshots, latest first, a label window apart.

    A whole label window follows each cutoff, and at least a window's length and a quarter of the log precede
    it. Raises DataError if the log is too short for one snapshot.
    """
    first = int(log.ts.min())
    earliest = first + max(settings.window_s, (settings.until - first) // 4)
    cutoffs = [settings.until - settings.window_s * number for number in range(1, settings.snapshots + 1)]
    cutoffs = [cutoff for cutoff in cutoffs if cutoff >= earliest]
    if not cutoffs:
        days = (settings.until - first) / DAY_S
        least = 2 * settings.window_s / DAY_S
        raise DataError(
            f"{days:.0f} days of actions are too few for the ranker: it needs at least {least:.0f}"
        )
    return cutoffs


def load(out: Path) -> TrainedModels:
    """Read a finished training. Raises DataError if it does not exist or is not finished."""
    try:
        about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
        settings = TrainingSettings.read(about["settings"])
        encoder = Encoder.load(out / "vocabulary")
        two_tower, ranker = new_networks(encoder, settings)
        quantiles, curves = Quantiles.load(out / "quantiles.json"), np.load(out / "curves.npy")
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, network in (("two_tower", two_tower), ("ranker", ranker)):
            network.set_state_dict(load_weights(weights_path(out, name)))
            digest.update(weights_path(out, name).read_bytes())
            network.eval()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: run `ecrs train` to completion first") from error
    return TrainedModels(settings, about, encoder, two_tower, ranker, quantiles, curves, digest.digest(), out)


def fit_encoder(data: Dataset, until: int) -> Encoder:
    """Build vocabularies of the users and items with actions before `until`.

    All other users and items are out of vocabulary: no example would train embeddings of their own, whereas
    the out-of-vocabulary embedding is trained for such cases.
    """
    log = data.log.before(until)
    users, items = data.users[np.unique(log.user)], data.items[np.unique(log.item)]
    columns = {name: users[name] for name in USER_COLUMNS} | {name: items[name] for name in ITEM_FIELDS}
    return Encoder.build(columns)


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Prepare the directory of a training. Files of a training with other settings or data are deleted."""
    path = out / ABOUT
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != about:
        for name in (*MODELS, WARM_TOWERS):
            weights_path(out, name).unlink(missing_ok=True)
            checkpoint_path(out, name).unlink(missing_ok=True)
        for name in (*EXAMPLES, TEACHER):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "vocabulary", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f".{ABOUT}"
    draft.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)

"""The part of a training that runs in worker processes: the ranker's examples, and the served towers."""

from functools import partial
from pathlib import Path

import numpy as np

from ecrs.features.encoding import Encoder
from ecrs.features.quantiles import Quantiles
from ecrs_models.data.log import Log
from ecrs_models.progress import Step
from ecrs_models.snapshots.snapshot import EncodedTables, NearestItems, Snapshot
from ecrs_models.training.jobs import TowerJob
from ecrs_models.training.loop import fit
from ecrs_models.training.networks import in_batches, new_networks
from ecrs_models.training.ranking_examples import (
    Draw,
    RankingExamples,
    SnapshotExamples,
    example_users,
)
from ecrs_models.training.sampling import TowerExamples
from ecrs_models.training.settings import TrainingSettings
from ecrs_models.training.weights import load_weights, weights_path


class TrainingWorker:
    """Builds the ranker's examples at some of the snapshots, and trains the served towers.

    The examples of a snapshot are built in four calls, `prepare`, `retrieve`, `draw` and `encode`, between
    which the worker keeps the intermediate results. Snapshots are identified by their cutoff. `log` ends
    where the data of the training end.
    """

    def __init__(
        self, log: Log, tables: EncodedTables, encoder: Encoder, settings: TrainingSettings, out: Path
    ) -> None:
        self._log, self._tables, self._encoder = log, tables, encoder
        self._settings, self._out = settings, out
        self._snapshots: dict[int, Snapshot] = {}
        self._examples: dict[int, SnapshotExamples] = {}
        self._draws: dict[int, Draw] = {}

    def prepare(self, cutoff: int) -> None:
        """Compute the snapshot. Does not need the towers."""
        self._snapshots[cutoff] = Snapshot.of(self._log, cutoff, self._tables, self._settings.tables)

    def retrieve(self, cutoff: int, towers: str) -> tuple[np.ndarray, np.ndarray]:
        """Run every channel for the example users, with the vectors of model `towers`.

        Returns `SnapshotExamples.channel_hits`.
        """
        settings = self._settings
        two_tower, _ = new_networks(self._encoder, settings)
        two_tower.set_state_dict(load_weights(weights_path(self._out, towers)))
        two_tower.eval()
        snapshot = self._snapshots.pop(cutoff)
        nearest = NearestItems(in_batches(two_tower.item_tower, self._tables.items), snapshot.sold)
        users = example_users(
            snapshot,
            self._log.positives().between(cutoff, cutoff + settings.window_s),
            nearest,
            partial(in_batches, two_tower.user_tower),
            settings.candidates,
            np.random.default_rng((settings.seed, 4, cutoff)),
        )
        self._examples[cutoff] = examples = SnapshotExamples(snapshot, list(users))
        return examples.channel_hits()

    def draw(self, cutoff: int, curves: np.ndarray, sample: int) -> np.ndarray:
        """Draw the snapshot's examples. Returns the features of at most `sample` of them."""
        rng = np.random.default_rng((self._settings.seed, 5, cutoff))
        self._draws[cutoff] = drawn = self._examples.pop(cutoff).draw(curves, self._settings.candidates, rng)
        return drawn.features[rng.permutation(len(drawn.features))[:sample]]

    def encode(self, cutoff: int, quantiles: Quantiles) -> RankingExamples:
        """Return the examples with their features as quantile levels."""
        return self._draws.pop(cutoff).encoded(quantiles, self._settings.candidates.negatives)

    def fit_towers(
        self, name: str, start: str, until: int, epochs: int, since: int, checkpoint_s: float
    ) -> None:
        """Train the towers `name`, starting with the weights `start`, on the log from `since` to `until`."""
        two_tower, _ = new_networks(self._encoder, self._settings)
        two_tower.set_state_dict(load_weights(weights_path(self._out, start)))
        examples = TowerExamples(self._log.before(until), self._tables.users, self._tables.items, since)
        job = TowerJob(name, two_tower, examples, self._settings, epochs, self._settings.tower_rows)
        fit(job, self._out, Step(name, job.steps, lambda step: None), checkpoint_s)

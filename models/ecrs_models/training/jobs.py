"""The training jobs of the two-tower model and the ranker: which batch each step is trained on."""

from typing import Any

import numpy as np

from ecrs_models.snapshots.snapshot import EncodedTables
from ecrs_models.training.ranking_examples import RankingExamples
from ecrs_models.training.sampling import (
    RankerBatch,
    TowerBatch,
    TowerExamples,
    epoch_rows,
    ranker_batch,
    tower_batch,
)
from ecrs_models.training.settings import TrainingSettings
from ecrs_models.training.two_tower import TwoTower


class TowerJob:
    """Trains the two-tower model on `epoch_rows` of the log, at most `rows`, drawn anew for each epoch."""

    def __init__(
        self,
        name: str,
        network: TwoTower,
        examples: TowerExamples,
        settings: TrainingSettings,
        epochs: int,
        rows: int,
    ) -> None:
        self.name, self.network, self.rate = name, network, settings.tower_rate
        self._examples, self._seed = examples, settings.seed
        self._limit, self._size = rows, settings.tower_batch
        self._epoch, self._rows = -1, np.zeros(0, dtype=np.int64)
        self._per_epoch = -(-len(self._rows_of(0)) // self._size)
        self.steps = epochs * self._per_epoch

    def batch(self, step: int) -> tuple[TowerBatch, int]:
        """Return the input of a step and its number of log rows."""
        epoch, part = divmod(step, self._per_epoch)
        rows = self._rows_of(epoch)[part * self._size : (part + 1) * self._size]
        return tower_batch(self._examples, rows, np.random.default_rng((self._seed, 1, step))), len(rows)

    def _rows_of(self, epoch: int) -> np.ndarray:
        """Return the log rows of an epoch in the order of training. Only the last epoch's are kept."""
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, 0, epoch))
            self._epoch = epoch
            self._rows = epoch_rows(self._examples.rows, self._examples.log.basket, self._limit, rng)
        return self._rows


class RankerJob:
    """Trains the ranker on its examples in random order, epoch by epoch."""

    name = "ranker"

    def __init__(
        self,
        network: Any,
        examples: RankingExamples,
        targets: np.ndarray,
        tables: EncodedTables,
        settings: TrainingSettings,
    ) -> None:
        self.network, self.rate = network, settings.ranker_rate
        self._examples, self._targets, self._tables = examples, targets, tables
        self._seed, self._size = settings.seed, settings.ranker_batch
        self._per_epoch = -(-len(targets) // self._size)
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)
        self.steps = settings.ranker_epochs * self._per_epoch

    def batch(self, step: int) -> tuple[RankerBatch, int]:
        """Return the input of a step and its number of examples."""
        epoch, part = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, 2, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self._targets))
        rows = self._order[part * self._size : (part + 1) * self._size]
        rng = np.random.default_rng((self._seed, 3, step))
        return ranker_batch(self._examples, self._targets, self._tables, rows, rng), len(rows)

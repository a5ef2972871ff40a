"""The settings of a training, and their quick variant."""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ecrs_models.errors import DataError
from ecrs_models.snapshots.snapshot import ChannelSettings
from ecrs_models.training.ranking_examples import CandidateSettings


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that determines the weights, besides the data.

    `until`: end of the data, Unix seconds, excluded.
    `window_s`: length of a label window in seconds, which is also the distance between snapshots.
    `early_epochs`, `tower_epochs`, `ranker_epochs`: passes over the data. With 0 `tower_epochs`, the early
    towers are served.
    `early_rows`, `tower_rows`: largest number of log rows per pass of the early and of the served towers.
    `tower_batch`, `ranker_batch`: examples per step.
    `tower_rate`, `ranker_rate`: initial learning rates.
    `teacher_rounds`: number of trees of the teacher model; with 0, there is no distillation.
    `teacher_share`: weight of the teacher's prediction in the target; the label has the rest.
    `ranker`: name of the network, a key of RANKERS.
    `start`: version of the bundle that the weights start from; empty for new weights.
    `snapshots`: number of past snapshots that the ranker is trained on; fewer if the log is short.
    `is_quick`: True for the settings of `quick`.
    `tables`, `candidates`: settings of the retrieval channels and of the ranker's examples.
    """

    until: int
    window_s: int
    seed: int = 1
    early_epochs: int = 1
    tower_epochs: int = 1
    ranker_epochs: int = 2
    early_rows: int = 600_000
    tower_rows: int = 600_000
    tower_batch: int = 1024
    ranker_batch: int = 1024
    tower_rate: float = 2e-3
    ranker_rate: float = 2e-3
    teacher_rounds: int = 200
    teacher_share: float = 0.7
    ranker: str = "deepfm"
    start: str = ""
    snapshots: int = 3
    is_quick: bool = False
    tables: ChannelSettings = field(default_factory=ChannelSettings)
    candidates: CandidateSettings = field(default_factory=CandidateSettings)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> "TrainingSettings":
        """Inverse of `dataclasses.asdict`. Raises DataError if a setting is missing or of another type."""
        try:
            return msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"not the settings of a training: {error}") from error

    def quick(self) -> "TrainingSettings":
        """Return settings for a first bundle within a minute, for trying out the platform.

        They train without a teacher model, only one set of towers, and with fewer snapshots and examples.
        docs/reference/quality.md compares the results with those of the full training.
        """
        return replace(
            self,
            is_quick=True,
            tower_epochs=0,
            ranker_epochs=1,
            early_rows=150_000,
            teacher_rounds=0,
            snapshots=2,
            tables=replace(self.tables, similar_items=3000),
            candidates=replace(self.candidates, negatives=0.2),
        )

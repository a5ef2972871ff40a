"""The settings of a training."""

from dataclasses import dataclass, field, replace
from typing import Any

from ecrs_models.snapshots.snapshot import ChannelSettings
from ecrs_models.training.ranking_examples import CandidateSettings


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the weights, besides the data.

    `until`: end of the data, Unix seconds, excluded.
    `window_s`: length of a label window, and the distance of two snapshots.
    `early_epochs`, `tower_epochs`, `ranker_epochs`: passes over the data. Without `tower_epochs` the early
    towers are served.
    `early_rows`, `tower_rows`: most log rows per pass of the early and of the served towers.
    `teacher_rounds`: trees of the teacher model; 0 trains without one.
    `teacher_share`: weight of the teacher's prediction in a target; the rest is the label's.
    `start`: version of the bundle that the weights start from; empty for new weights.
    `snapshots`: past snapshots that the ranker learns from; fewer if the data are short.
    `is_quick`: whether these are the settings of `quick`.
    """

    until: int
    window_s: int
    seed: int = 1
    early_epochs: int = 1
    tower_epochs: int = 1
    ranker_epochs: int = 2
    early_rows: int = 200_000
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
        """Inverse of `dataclasses.asdict`."""
        tables, candidates = ChannelSettings(**raw["tables"]), CandidateSettings(**raw["candidates"])
        return cls(**{**raw, "tables": tables, "candidates": candidates})

    def quick(self) -> "TrainingSettings":
        """For a first bundle within a minute: no teacher, one set of towers, fewer snapshots and examples.

        docs/reference/quality.md compares it with the full training.
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

"""The settings of a training."""

from dataclasses import dataclass, field
from typing import Any

from ecrs_models.snapshots.snapshot import ChannelSettings
from ecrs_models.training.ranking_examples import CandidateSettings


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the weights, besides the data.

    `until`: Unix seconds, exclusive. `snapshots`: how many past snapshots the ranker learns from,
    `window_s` apart, each with the labels of the `window_s` after it; fewer where the data are short.
    """

    until: int
    window_s: int
    seed: int = 1
    tower_epochs: int = 1
    early_epochs: int = 1
    ranker_epochs: int = 2
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
    snapshots: int = 4
    tables: ChannelSettings = field(default_factory=ChannelSettings)
    candidates: CandidateSettings = field(default_factory=CandidateSettings)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> "TrainingSettings":
        """From `asdict`."""
        tables, candidates = ChannelSettings(**raw["tables"]), CandidateSettings(**raw["candidates"])
        return cls(**{**raw, "tables": tables, "candidates": candidates})

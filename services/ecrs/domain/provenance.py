"""What recall's channels say of a list of candidates: a column a channel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Provenance = tuple[str, int, float]
"""A channel's word on one candidate: its name, the candidate's position, its score."""


@dataclass(frozen=True, slots=True, eq=False)
class ProvenanceTable:
    """`channels`, the columns' names; `positions`, int64 (N, channels), 1 is a channel's best, 0: it did
    not propose the candidate; `scores`, float32 (N, channels), NaN: it has none for the candidate."""

    channels: tuple[str, ...]
    positions: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, said: Sequence[Sequence[Provenance]], channels: Sequence[str]) -> "ProvenanceTable":
        """From what is said of each candidate, by channels that are among `channels`."""
        provenance = cls.empty(len(said), channels)
        column = {name: place for place, name in enumerate(channels)}
        for row, of in enumerate(said):
            for channel, position, score in of:
                provenance.positions[row, column[channel]] = position
                provenance.scores[row, column[channel]] = score
        return provenance

    @classmethod
    def empty(cls, n: int, channels: Sequence[str] = ()) -> "ProvenanceTable":
        """Nothing said of `n` candidates."""
        shape = (n, len(channels))
        return cls(tuple(channels), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: Sequence[int] | slice) -> "ProvenanceTable":
        """Of some of the candidates."""
        return ProvenanceTable(self.channels, self.positions[rows], self.scores[rows])

    def select(self, channels: Sequence[str]) -> "ProvenanceTable":
        """Of `channels`, in their order, silent where they are none of these."""
        if self.channels == tuple(channels):
            return self
        found = self.empty(len(self), channels)
        for column, name in enumerate(channels):
            if name in self.channels:
                mine = self.channels.index(name)
                found.positions[:, column] = self.positions[:, mine]
                found.scores[:, column] = self.scores[:, mine]
        return found

    def counts(self) -> dict[str, int]:
        """How many of the candidates each channel proposed."""
        return dict(zip(self.channels, np.count_nonzero(self.positions, axis=0).tolist(), strict=True))

    def entries(self) -> list[list[Provenance]]:
        """Of each candidate the channels that proposed it, without those that only have a score for it."""
        said: list[list[Provenance]] = [[] for _ in range(len(self))]
        rows, columns = np.nonzero(self.positions)
        positions = self.positions[rows, columns].tolist()
        scores = self.scores[rows, columns].tolist()
        for row, column, position, score in zip(
            rows.tolist(), columns.tolist(), positions, scores, strict=True
        ):
            said[row].append((self.channels[column], position, score))
        return said

"""Provenance: which retrieval channels found each candidate, at which position and with which score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Provenance = tuple[str, int, float]
"""A channel that found a candidate: its name, the candidate's position in its list, its score."""


@dataclass(frozen=True, slots=True, eq=False)
class ProvenanceTable:
    """The provenance of N candidates, one column per retrieval channel.

    `channels`: names of the columns. `positions`: int64, shape (N, channels); 1 is the channel's best
    candidate, 0 means that the channel did not find the candidate. `scores`: float32, shape (N, channels);
    NaN means that the channel has no score for the candidate.
    """

    channels: tuple[str, ...]
    positions: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, entries: Sequence[Sequence[Provenance]], channels: Sequence[str]) -> "ProvenanceTable":
        """Build a table from each candidate's entries, whose channels must be among `channels`."""
        table = cls.empty(len(entries), channels)
        column = {name: index for index, name in enumerate(channels)}
        for row, candidate_entries in enumerate(entries):
            for channel, position, score in candidate_entries:
                table.positions[row, column[channel]] = position
                table.scores[row, column[channel]] = score
        return table

    @classmethod
    def empty(cls, n: int, channels: Sequence[str] = ()) -> "ProvenanceTable":
        """Return a table of `n` candidates that no channel found."""
        shape = (n, len(channels))
        return cls(tuple(channels), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: Sequence[int] | slice) -> "ProvenanceTable":
        """Return the table of the candidates at `rows`."""
        return ProvenanceTable(self.channels, self.positions[rows], self.scores[rows])

    def plus(self, other: "ProvenanceTable") -> "ProvenanceTable":
        """Return a table of this one's candidates followed by the other's."""
        channels = tuple(dict.fromkeys(self.channels + other.channels))
        tables = self.select(channels), other.select(channels)
        return ProvenanceTable(
            channels,
            np.concatenate([table.positions for table in tables]),
            np.concatenate([table.scores for table in tables]),
        )

    def select(self, channels: Sequence[str]) -> "ProvenanceTable":
        """Return the table with the columns `channels`; those that this table lacks are empty."""
        if self.channels == tuple(channels):
            return self
        selected = self.empty(len(self), channels)
        for column, name in enumerate(channels):
            if name in self.channels:
                own_column = self.channels.index(name)
                selected.positions[:, column] = self.positions[:, own_column]
                selected.scores[:, column] = self.scores[:, own_column]
        return selected

    def counts(self) -> dict[str, int]:
        """Return how many of the candidates each channel found."""
        return dict(zip(self.channels, np.count_nonzero(self.positions, axis=0).tolist(), strict=True))

    def entries(self) -> list[list[Provenance]]:
        """Return, for each candidate, an entry for each channel that found it.

        A channel that only has a score for the candidate gets no entry.
        """
        entries: list[list[Provenance]] = [[] for _ in range(len(self))]
        rows, columns = np.nonzero(self.positions)
        positions = self.positions[rows, columns].tolist()
        scores = self.scores[rows, columns].tolist()
        for row, column, position, score in zip(
            rows.tolist(), columns.tolist(), positions, scores, strict=True
        ):
            entries[row].append((self.channels[column], position, score))
        return entries

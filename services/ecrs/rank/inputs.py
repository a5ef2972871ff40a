"""A user and candidates as the ranker's input. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.catalogue import Catalogue, known
from ecrs.domain import ITEM_FIELDS, Item, User
from ecrs.features import Encoder
from ecrs.kit.errors import BadRequest
from ecrs.ranking_features import CHANNELS, STATISTICS, Candidates, Past, Quantiles, ranking_features
from ecrs.sources import Sources
from ecrs.totals import Totals


@dataclass(frozen=True)
class Records:
    """Products as the ranker knows them, whoever asks: `row`, int64 (N,), in the catalogue; `ids`, int64
    (N, ITEM_FIELDS); `statistics`, float32 (N, STATISTICS), NaN where there is none."""

    row: np.ndarray
    ids: np.ndarray
    statistics: np.ndarray

    @classmethod
    def room(cls, n: int) -> "Records":
        """For `n`, to be written to."""
        return cls(
            np.empty(n, dtype=np.int64),
            np.empty((n, len(ITEM_FIELDS)), dtype=np.int64),
            np.empty((n, len(STATISTICS)), dtype=np.float32),
        )

    def write(self, places: Sequence[int], records: "Records") -> None:
        self.row[places], self.ids[places] = records.row, records.ids
        self.statistics[places] = records.statistics

    def at(self, places: Sequence[int]) -> "Records":
        return Records(self.row[places], self.ids[places], self.statistics[places])


@dataclass(frozen=True)
class RankerInputs:
    """What turns requests into ids, of one bundle."""

    encoder: Encoder
    catalogue: Catalogue
    quantiles: Quantiles

    def records(self, items: Sequence[Item]) -> Records:
        """BadRequest for an item whose statistics are not as many as there should be."""
        rows = self.catalogue.rows(item.sku for item in items)
        return Records(rows, self.encoder.items(items), _statistics(items))

    def ids(self, user: User, records: Records, sources: Sources, now: int) -> np.ndarray:
        """The model's input, int64, shape (N, RANKER_COLUMNS)."""
        said = sources.columns(CHANNELS)
        positions = np.where(said.positions > 0, said.positions, np.nan)
        candidates = Candidates(
            records.row, known(records.ids[:, 1:]), records.statistics, positions, said.scores
        )
        levels = self.quantiles.levels(ranking_features(self.past(user.totals), candidates, now))
        who = np.array(self.encoder.user_row(user))
        return np.concatenate([np.broadcast_to(who, (len(levels), len(who))), records.ids, levels], axis=1)

    def past(self, totals: Totals) -> Past:
        rows = self.catalogue.rows(totals.skus)
        return Past(rows, self.catalogue.groups[rows], totals.numbers)


def _statistics(items: Sequence[Item]) -> np.ndarray:
    """float32 (N, STATISTICS), NaN for items that bring none."""
    none = (np.nan,) * len(STATISTICS)
    wrong = next((item for item in items if len(item.statistics) not in (0, len(none))), None)
    if wrong is not None:
        found = len(wrong.statistics)
        raise BadRequest(f"item_infos: {wrong.sku!r} has {found} statistics, expected {len(none)}")
    return np.array([item.statistics or none for item in items], dtype=np.float32)

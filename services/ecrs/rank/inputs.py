"""A user and candidates as the ranker's input. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecrs.catalogue import Catalogue, known
from ecrs.domain import Item, User
from ecrs.features import ITEM_GROUPS, PAIR_COLUMNS, Encoder
from ecrs.kit.errors import BadRequest
from ecrs.rank.domain import Scored
from ecrs.ranking_features import CHANNELS, STATISTICS, Candidates, Past, Quantiles, ranking_features
from ecrs.totals import Totals

_GROUP_COLUMNS = PAIR_COLUMNS.index(ITEM_GROUPS[0])
_CHANNEL = {name: place for place, name in enumerate(CHANNELS)}


@dataclass(frozen=True)
class RankerInputs:
    """What turns requests into ids, of one bundle."""

    encoder: Encoder
    catalogue: Catalogue
    quantiles: Quantiles

    def ids(self, user: User, asked: Sequence[Scored], now: int) -> np.ndarray:
        """The model's input, int64, shape (len(asked), RANKER_COLUMNS).

        BadRequest for an item whose statistics are not as many as there should be.
        """
        items = [one.item for one in asked]
        pairs = self.encoder.pairs(user, items)
        rows = self.catalogue.rows(item.sku for item in items)
        positions, scores = _sources(asked)
        groups = known(pairs[:, _GROUP_COLUMNS:])
        candidates = Candidates(rows, groups, _statistics(items), positions, scores)
        features = ranking_features(self.past(user.totals), candidates, now)
        return np.concatenate([pairs, self.quantiles.levels(features)], axis=1)

    def past(self, totals: Totals) -> Past:
        rows = self.catalogue.rows(totals.skus)
        return Past(rows, self.catalogue.groups[rows], totals.numbers)


def _sources(asked: Sequence[Scored]) -> tuple[np.ndarray, np.ndarray]:
    """The channels' positions and scores, float32 (N, CHANNELS), NaN where there is none."""
    positions = np.full((len(asked), len(CHANNELS)), np.nan, dtype=np.float32)
    scores = np.full((len(asked), len(CHANNELS)), np.nan, dtype=np.float32)
    for row, one in enumerate(asked):
        for channel, position, score in one.sources:
            if (column := _CHANNEL.get(channel)) is not None:
                scores[row, column] = score
                if position:
                    positions[row, column] = position
    return positions, scores


def _statistics(items: Sequence[Item]) -> np.ndarray:
    """float32 (N, STATISTICS), NaN for items that bring none."""
    none = (np.nan,) * len(STATISTICS)
    wrong = next((item for item in items if len(item.statistics) not in (0, len(none))), None)
    if wrong is not None:
        found = len(wrong.statistics)
        raise BadRequest(f"item_infos: {wrong.sku!r} has {found} statistics, expected {len(none)}")
    return np.array([item.statistics or none for item in items], dtype=np.float32)

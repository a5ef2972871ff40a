"""A moment: all that is known just before it, and the users' candidates as recall would propose them.

Training looks at past moments, evaluation at the one where training ended, export at the end of the
data; all by the classes that serve.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import faiss
import numpy as np

from ecrs.catalogue import Catalogue
from ecrs.domain import User
from ecrs.features import PADDING, Encoder
from ecrs.ranking_features import CHANNELS, Candidates, Past, ranking_features
from ecrs.recall.channels import Found, Interest, Similar
from ecrs.recall.proposals import DEPTH, Proposals, Proposer
from ecrs.recall.tables import popular_channel
from ecrs_models.dataset import Dataset, Log
from ecrs_models.tables import UserTotals, item_statistics, popular_counts, similar_items, user_totals


@dataclass(frozen=True)
class TableSettings:
    """How the recall channels' tables are made.

    `popular_days`: what counts as recent sales; `similar_items`: the most bought products are the ones
    that have neighbours; `similar_ridge`: regularisation, as a share of the users; `neighbours` a product.
    """

    popular_days: int = 14
    similar_items: int = 6000
    similar_ridge: float = 0.25
    neighbours: int = 50


NO_CURVES = np.zeros((len(CHANNELS), DEPTH), dtype=np.float32)


@dataclass(frozen=True)
class Tables:
    """The data set's tables as ids: `users`, `Encoder.user_table`; `items`, `Encoder.item_table`;
    `stranger`, int64 (1 + PROFILE_FIELDS,), a user of whom nothing is known."""

    users: np.ndarray
    items: np.ndarray
    catalogue: Catalogue
    stranger: np.ndarray

    @classmethod
    def of(cls, data: Dataset, encoder: Encoder) -> "Tables":
        items = encoder.item_table(data.items.to_dict())
        catalogue = Catalogue.of(data.items["sku"].to_list(), items)
        stranger = np.array(encoder.user_row(User()))
        return cls(encoder.user_table(data.users.to_dict()), items, catalogue, stranger)


@dataclass(frozen=True)
class Moment:
    """`now`, Unix seconds; `log`, all before it; what follows from that."""

    now: int
    log: Log
    tables: Tables
    totals: UserTotals
    statistics: np.ndarray
    proposer: Proposer

    @classmethod
    def of(
        cls, log: Log, now: int, tables: Tables, settings: TableSettings, curves: np.ndarray = NO_CURVES
    ) -> "Moment":
        """`log` may go on after `now`: what came later is left out."""
        log, items = log.before(now), len(tables.catalogue)
        counts = popular_counts(log, items, now, settings.popular_days)
        popular = popular_channel(tables.catalogue, counts / max(counts.sum(), 1))
        similar = similar_items(
            log,
            items,
            most=settings.similar_items,
            ridge=settings.similar_ridge,
            neighbours=settings.neighbours,
        )
        proposer = Proposer(tables.catalogue, Similar(*similar), popular, curves)
        return cls(now, log, tables, user_totals(log, items), item_statistics(log, items, now), proposer)

    def with_curves(self, curves: np.ndarray) -> "Moment":
        return replace(self, proposer=replace(self.proposer, curves=curves))

    @cached_property
    def sold(self) -> np.ndarray:
        """bool, (items,): what was ever bought."""
        sold = np.zeros(len(self.tables.catalogue), dtype=bool)
        sold[self.log.item[self.log.purchase_rows()]] = True
        return sold

    def tower_rows(self, users: np.ndarray) -> np.ndarray:
        """User tower input of some users, int64 (N, USER_TOWER_COLUMNS)."""
        sku_ids = np.append(self.tables.items[:, 0], PADDING)  # ABSENT, -1, finds the PADDING
        return np.concatenate([self.tables.users[users], sku_ids[self.log.latest(users)]], axis=1)

    def past(self, user: int) -> Past:
        item, numbers = self.totals.of(user)
        item = item.astype(np.int64)
        return Past(item, self.tables.catalogue.groups[item], numbers)

    def propose(self, past: Past, vector: Found, n: int, *, new_only: bool = False) -> Proposals:
        interest = Interest.of(past.item, past.numbers, self.now)
        asked = self.proposer.asked(interest, past.item, new_only=new_only)
        return self.proposer.merged(asked, vector, n)

    def features(self, past: Past, proposals: Proposals) -> np.ndarray:
        """`ranking_features` of the candidates, float32 (N, FEATURES)."""
        item = proposals.item
        groups = self.tables.catalogue.groups[item]
        candidates = Candidates(item, groups, self.statistics[item], proposals.positions, proposals.scores)
        return ranking_features(past, candidates, self.now)


class Nearest:
    """The vector channel over the products of `allowed`, exactly, as faiss serves it."""

    def __init__(self, vectors: np.ndarray, allowed: np.ndarray) -> None:
        self._item = np.flatnonzero(allowed)
        self._index = faiss.IndexFlatL2(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors[self._item]))

    def __call__(self, user_vectors: np.ndarray, n: int = DEPTH) -> list[Found]:
        distances, rows = self._index.search(np.ascontiguousarray(user_vectors), min(n, len(self._item)))
        return [Found(self._item[row], distance) for row, distance in zip(rows, distances, strict=True)]

"""Training examples from a log: which rows, which negatives, as of when. Numpy only.

Every example sees its user as the user was before the basket: nothing of the same snapshot or
later. Each batch depends on the seed and its number alone, so that training can stop and go on.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecrs.domain.entities import PROFILE_FIELDS
from ecrs.features.encoding import OUT_OF_VOCABULARY, PADDING
from ecrs.features.ranker_input import ranker_matrix
from ecrs_models.data.log import Log
from ecrs_models.snapshots.snapshot import EncodedTables
from ecrs_models.training.ranking_examples import RankingExamples

ITEMS_PER_BASKET = 8
"""A basket gives at most so many examples an epoch: a long one says little more than that."""
USER_DROPOUT, HISTORY_DROPOUT, SKU_DROPOUT, FIELD_DROPOUT = 0.3, 0.2, 0.1, 0.05
"""How often an example comes without user id, history, sku or one field: new users, new products."""
UNIFORM_SHARE = 2
"""One negative of the whole catalogue for so many examples: rare items are scored down by nothing else."""
RANKER_ID_DROPOUT = 0.5
"""How often the ranker does without the user's id or the sku: its features say more than the ids can."""
_RANKER_DROPOUT = np.array([RANKER_ID_DROPOUT] + [FIELD_DROPOUT] * len(PROFILE_FIELDS))


@dataclass(frozen=True)
class TowerExamples:
    """A log with its tables encoded.

    `log` ends where training ends; what came from `since` on, Unix seconds, is to be learned. `users`,
    int64, shape (users, 1 + profile fields); `items`, int64, shape (items, item fields).
    """

    log: Log
    users: np.ndarray
    items: np.ndarray
    since: int = 0

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows of the log to learn from: purchases, or everything where there are none."""
        rows = self.log.positive_rows()
        return rows[self.log.ts[rows] >= self.since]

    @cached_property
    def log_q(self) -> np.ndarray:
        """log of the probability that an example's item is this one: float32, shape (items,)."""
        counts = np.bincount(self.log.item[self.rows], minlength=len(self.items))
        return np.log(np.maximum(counts, 1) / max(len(self.rows), 1)).astype(np.float32)

    def log_q_mixed(self, in_batch: int, uniform: int) -> np.ndarray:
        """log of the probability that a column of a batch is this item, float32, shape (items,): of the
        batch's own items by how often they are bought, of uniform ones all alike.
        Source: Yang et al., "Mixed negative sampling for learning two-tower neural networks", WWW 2020.
        """
        even = uniform / max(len(self.catalogue), 1)
        mixed = (in_batch * np.exp(self.log_q) + even) / max(in_batch + uniform, 1)
        return np.log(mixed).astype(np.float32)

    @cached_property
    def catalogue(self) -> np.ndarray:
        """The items that occur among the rows."""
        return np.unique(self.log.item[self.rows])

    def sku_ids(self, items: np.ndarray) -> np.ndarray:
        """Vocabulary ids of item numbers; ABSENT, which is -1, finds the appended PADDING."""
        return np.append(self.items[:, 0], PADDING)[items]

    def histories(self, rows: np.ndarray) -> np.ndarray:
        """Item numbers before each row's basket, shape (N, HISTORY_LENGTH)."""
        return self.log.histories(self.log.user[rows], self.log.basket[rows])


@dataclass(frozen=True)
class TowerBatch:
    """`users`, int64 (U, user tower columns); `user`, (N,), the row of `users` of each example; `items`,
    int64 (N + M, item tower columns), `item`, (N + M,), numbers, and `log_q`, float32 (N + M,): first the
    examples' own, then M negatives drawn from the whole catalogue."""

    users: np.ndarray
    user: np.ndarray
    items: np.ndarray
    item: np.ndarray
    log_q: np.ndarray


def epoch_rows(rows: np.ndarray, basket: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """At most `limit` of `rows` for one epoch: baskets in random order, ITEMS_PER_BASKET of each."""
    baskets, group = np.unique(basket[rows], return_inverse=True)
    place = rng.permutation(len(baskets))[group]
    order = np.lexsort((rng.random(len(rows)), place))
    first = np.r_[0, np.flatnonzero(np.diff(place[order])) + 1] if len(rows) else np.zeros(0, dtype=np.int64)
    position = np.arange(len(rows)) - np.repeat(first, np.diff(np.r_[first, len(rows)]))
    return rows[order[position < ITEMS_PER_BASKET]][:limit]


def tower_batch(examples: TowerExamples, rows: np.ndarray, rng: np.random.Generator) -> TowerBatch:
    """The two-tower's input for some rows of the log, with dropout to out-of-vocabulary ids."""
    log = examples.log
    _, first, user = np.unique(log.basket[rows], return_index=True, return_inverse=True)
    one_each = rows[first]
    history = examples.sku_ids(examples.histories(one_each))
    history[rng.random(len(history)) < HISTORY_DROPOUT] = PADDING
    profile = drop_users(examples.users[log.user[one_each]], rng)
    uniform = examples.catalogue[rng.integers(len(examples.catalogue), size=len(rows) // UNIFORM_SHARE)]
    item = np.concatenate([log.item[rows], uniform])
    return TowerBatch(
        users=np.concatenate([profile, history], axis=1),
        user=user,
        items=drop_items(examples.items[item], rng),
        item=item,
        log_q=examples.log_q_mixed(len(rows), len(uniform))[item],
    )


def false_negatives(batch: TowerBatch) -> np.ndarray:
    """Pairs that must not count as negatives: bool, shape (N, N + M), False on the diagonal.

    Item j is no negative of example i if it is the same item (an accidental hit) or was taken in the
    same basket (the user took it too).
    """
    count = len(batch.user)
    same = batch.item[:count, None] == batch.item
    same[:, :count] |= batch.user[:, None] == batch.user
    np.fill_diagonal(same, False)
    return same


@dataclass(frozen=True)
class RankerBatch:
    """`ids`, int64 (N, RANKER_COLUMNS); `targets`, `weights`, float32 (N, 1); `rng`, for dropout."""

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    rng: np.random.Generator


def ranker_batch(
    examples: RankingExamples,
    targets: np.ndarray,
    tables: EncodedTables,
    rows: np.ndarray,
    rng: np.random.Generator,
) -> RankerBatch:
    """The ranker's input for some of the examples, with dropout to out-of-vocabulary ids.

    `targets`, float32, belong to all examples.
    """
    users = tables.users[examples.user[rows]]
    users = np.where(rng.random(users.shape) < _RANKER_DROPOUT, OUT_OF_VOCABULARY, users)
    users[~examples.known[rows], 0] = OUT_OF_VOCABULARY
    items = drop_items(tables.items[examples.item[rows]], rng, sku=RANKER_ID_DROPOUT)
    ids = ranker_matrix(users, items, examples.levels[rows])
    return RankerBatch(ids, targets[rows][:, None], examples.weight[rows][:, None], rng)


def drop_users(profile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy with some user ids and profile values out of vocabulary."""
    chance = np.array([USER_DROPOUT] + [FIELD_DROPOUT] * len(PROFILE_FIELDS))
    return np.where(rng.random(profile.shape) < chance, OUT_OF_VOCABULARY, profile)


def drop_items(items: np.ndarray, rng: np.random.Generator, sku: float = SKU_DROPOUT) -> np.ndarray:
    """A copy with some skus, brands, shops and categories out of vocabulary."""
    chance = np.array([sku] + [FIELD_DROPOUT] * (items.shape[1] - 1))
    return np.where(rng.random(items.shape) < chance, OUT_OF_VOCABULARY, items)

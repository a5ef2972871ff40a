"""Samples training batches: positives, negatives, histories and dropout. Numpy only.

An example's history ends before its basket: it holds no action with the same timestamp or a later one. A
batch depends only on the seed and its number, so that an interrupted training can continue.
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
"""Largest number of examples from one basket per epoch. Further items of a long basket add little."""
USER_DROPOUT, HISTORY_DROPOUT, SKU_DROPOUT, FIELD_DROPOUT = 0.3, 0.2, 0.1, 0.05
"""Probabilities that user id, history, sku or any other field are hidden, as for new users and products."""
UNIFORM_SHARE = 2
"""Number of examples per negative drawn uniformly from the catalogue.

Otherwise rare items would hardly ever be negatives, and nothing would lower their scores.
"""
RANKER_ID_DROPOUT = 0.5
"""Probability that the user id or the sku is hidden from the ranker: its features carry more information."""
_RANKER_DROPOUT = np.array([RANKER_ID_DROPOUT] + [FIELD_DROPOUT] * len(PROFILE_FIELDS))


@dataclass(frozen=True)
class TowerExamples:
    """The log that the two-tower model is trained on, with encoded tables.

    `log` ends where training ends; positive actions since `since`, Unix seconds, are the examples. `users`,
    int64, shape (users, 1 + profile fields), and `items`, int64, shape (items, item fields), are vocabulary
    ids.
    """

    log: Log
    users: np.ndarray
    items: np.ndarray
    since: int = 0

    @cached_property
    def rows(self) -> np.ndarray:
        """Row numbers, in the log, of the examples: its positive actions since `since`."""
        rows = self.log.positive_rows()
        return rows[self.log.ts[rows] >= self.since]

    @cached_property
    def log_q(self) -> np.ndarray:
        """Log probability that an example's item is each item: float32, shape (items,)."""
        counts = np.bincount(self.log.item[self.rows], minlength=len(self.items))
        return np.log(np.maximum(counts, 1) / max(len(self.rows), 1)).astype(np.float32)

    def log_q_mixed(self, in_batch: int, uniform: int) -> np.ndarray:
        """Log probability that a column of a batch's logits is each item: float32, shape (items,).

        A batch has `in_batch` columns for its own items, which occur as often as they are bought, and
        `uniform` columns for items drawn uniformly from the catalogue.
        Source: Yang et al., "Mixed negative sampling for learning two-tower neural networks", WWW 2020.
        """
        per_item = uniform / max(len(self.catalogue), 1)
        mixed = (in_batch * np.exp(self.log_q) + per_item) / max(in_batch + uniform, 1)
        return np.log(mixed).astype(np.float32)

    @cached_property
    def catalogue(self) -> np.ndarray:
        """The items that occur in the examples."""
        return np.unique(self.log.item[self.rows])

    def sku_ids(self, items: np.ndarray) -> np.ndarray:
        """Return the sku ids of rows of the items' table. ABSENT, -1, yields the appended PADDING."""
        return np.append(self.items[:, 0], PADDING)[items]

    def histories(self, rows: np.ndarray) -> np.ndarray:
        """Return the history before the basket of each log row: item rows, shape (N, HISTORY_LENGTH)."""
        return self.log.histories(self.log.user[rows], self.log.basket[rows])


@dataclass(frozen=True)
class TowerBatch:
    """A batch of N examples from U baskets, with M uniform negatives.

    `users`, int64 (U, user tower columns): the user tower's input, one row per basket; `user`, (N,): the row
    of `users` of each example. `items`, int64 (N + M, item tower columns): the item tower's input; `item`,
    (N + M,): rows of the items' table; `log_q`, float32 (N + M,): sampling log probabilities. In these
    three, the examples' own items come first, then the negatives, drawn uniformly from the catalogue.
    """

    users: np.ndarray
    user: np.ndarray
    items: np.ndarray
    item: np.ndarray
    log_q: np.ndarray


def epoch_rows(rows: np.ndarray, basket: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Draw at most `limit` of `rows` for one epoch: baskets in random order, ITEMS_PER_BASKET of each."""
    baskets, group = np.unique(basket[rows], return_inverse=True)
    rank = rng.permutation(len(baskets))[group]
    order = np.lexsort((rng.random(len(rows)), rank))
    first = np.r_[0, np.flatnonzero(np.diff(rank[order])) + 1] if len(rows) else np.zeros(0, dtype=np.int64)
    position = np.arange(len(rows)) - np.repeat(first, np.diff(np.r_[first, len(rows)]))
    return rows[order[position < ITEMS_PER_BASKET]][:limit]


def tower_batch(examples: TowerExamples, rows: np.ndarray, rng: np.random.Generator) -> TowerBatch:
    """Build the two-tower model's input for some rows of the log, with dropout to out-of-vocabulary ids."""
    log = examples.log
    _, first, user = np.unique(log.basket[rows], return_index=True, return_inverse=True)
    baskets = rows[first]
    history = examples.sku_ids(examples.histories(baskets))
    history[rng.random(len(history)) < HISTORY_DROPOUT] = PADDING
    profile = drop_users(examples.users[log.user[baskets]], rng)
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
    """Return the pairs that must not count as negatives: bool, shape (N, N + M), False on the diagonal.

    Item j is not a negative of example i if it is the same item (an accidental hit), or comes from the same
    basket, so that the user bought it too.
    """
    count = len(batch.user)
    excluded = batch.item[:count, None] == batch.item
    excluded[:, :count] |= batch.user[:, None] == batch.user
    np.fill_diagonal(excluded, False)
    return excluded


@dataclass(frozen=True)
class RankerBatch:
    """A batch of the ranker.

    `ids`, int64 (N, RANKER_COLUMNS): the input; `targets`, `weights`, float32 (N, 1); `rng`: for the
    network's dropout layers.
    """

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
    """Build the ranker's input for the examples in `rows`, with dropout to out-of-vocabulary ids.

    `targets`, float32, are those of all examples.
    """
    users = tables.users[examples.user[rows]]
    users = np.where(rng.random(users.shape) < _RANKER_DROPOUT, OUT_OF_VOCABULARY, users)
    users[~examples.known[rows], 0] = OUT_OF_VOCABULARY
    items = drop_items(tables.items[examples.item[rows]], rng, sku=RANKER_ID_DROPOUT)
    ids = ranker_matrix(users, items, examples.levels[rows])
    return RankerBatch(ids, targets[rows][:, None], examples.weight[rows][:, None], rng)


def drop_users(profile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy with some user ids and profile values replaced by the out-of-vocabulary id."""
    probability = np.array([USER_DROPOUT] + [FIELD_DROPOUT] * len(PROFILE_FIELDS))
    return np.where(rng.random(profile.shape) < probability, OUT_OF_VOCABULARY, profile)


def drop_items(items: np.ndarray, rng: np.random.Generator, sku: float = SKU_DROPOUT) -> np.ndarray:
    """Return a copy with some skus, brands, shops and categories replaced by the out-of-vocabulary id.

    `sku` is the probability for skus.
    """
    probability = np.array([sku] + [FIELD_DROPOUT] * (items.shape[1] - 1))
    return np.where(rng.random(items.shape) < probability, OUT_OF_VOCABULARY, items)

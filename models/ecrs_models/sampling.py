"""Training examples from a log: which rows, which negatives, as of when. Numpy only.

Every example sees its user as the user was before the basket: nothing of the same moment or
later. Each batch depends on the seed and its number alone, so that training can stop and go on.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecrs.domain import PROFILE_FIELDS
from ecrs.features import ABSENT, OUT_OF_VOCABULARY, PADDING, crosses
from ecrs_models.dataset import Log

ITEMS_PER_BASKET = 8
"""A basket gives at most so many examples an epoch: a long one says little more than that."""
USER_DROPOUT, HISTORY_DROPOUT, SKU_DROPOUT, FIELD_DROPOUT = 0.3, 0.2, 0.1, 0.05
"""How often an example comes without user id, history, sku or one field: new users, new products."""
OWN_NEGATIVES = 2
"""Negatives of the ranker out of the user's own history; one more is by popularity, one uniform."""


@dataclass(frozen=True)
class Examples:
    """A log with its tables encoded.

    `log` ends where training ends; `positives` is the part of it to learn. `users`, int64, shape
    (users, 1 + profile fields); `items`, int64, shape (items, item fields).
    """

    log: Log
    users: np.ndarray
    items: np.ndarray

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows of the log to learn from: purchases, or everything where there are none."""
        return self.log.purchase_rows()

    @cached_property
    def log_q(self) -> np.ndarray:
        """log of the probability that an example's item is this one: float32, shape (items,)."""
        counts = np.bincount(self.log.item[self.rows], minlength=len(self.items))
        return np.log(np.maximum(counts, 1) / max(len(self.rows), 1)).astype(np.float32)

    def log_popularity(self, cardinality: int) -> np.ndarray:
        """`log_q` by vocabulary id of the sku, what is out of vocabulary as rare as the rarest: float32."""
        values = np.full(cardinality, self.log_q.min(), dtype=np.float32)
        values[self.items[self.catalogue, 0]] = self.log_q[self.catalogue]
        return values

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
    """`users`, int64 (U, user tower columns); the rest a row an example: `user`, (N,), the row of
    `users`; `items`, int64 (N, item tower columns); `item`, (N,), numbers; `log_q`, float32 (N,)."""

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


def tower_batch(examples: Examples, rows: np.ndarray, rng: np.random.Generator) -> TowerBatch:
    """The two-tower's input for some rows of the log, with dropout to out-of-vocabulary ids."""
    log = examples.log
    _, first, user = np.unique(log.basket[rows], return_index=True, return_inverse=True)
    one_each = rows[first]
    history = examples.sku_ids(examples.histories(one_each))
    history[rng.random(len(history)) < HISTORY_DROPOUT] = PADDING
    profile = drop_users(examples.users[log.user[one_each]], rng)
    item = log.item[rows]
    return TowerBatch(
        users=np.concatenate([profile, history], axis=1),
        user=user,
        items=drop_items(examples.items[item], rng),
        item=item,
        log_q=examples.log_q[item],
    )


def same_answers(batch: TowerBatch) -> np.ndarray:
    """Pairs that must not count as negatives: bool, shape (N, N), False on the diagonal.

    Example j is no negative of example i if it has the same item (an accidental hit) or comes
    from the same basket (the user took it too).
    """
    same = (batch.item[:, None] == batch.item) | (batch.user[:, None] == batch.user)
    np.fill_diagonal(same, False)
    return same


@dataclass(frozen=True)
class RankerBatch:
    """`ids`, int64 (M, ranker columns); `labels`, float32 (M, 1), 1 for what was taken; `log_noise`,
    float32 (M, 1), log of how often each item was to be expected among its example's negatives."""

    ids: np.ndarray
    labels: np.ndarray
    log_noise: np.ndarray


def ranker_batch(examples: Examples, rows: np.ndarray, rng: np.random.Generator) -> RankerBatch:
    """The ranker's input for some rows of the log, each a positive with its negatives.

    The negatives are drawn from what the user may be shown, without looking at what was taken: one
    by popularity, one of the whole catalogue, OWN_NEGATIVES of the user's history if there is one.
    `log_noise` lets the loss take out how they were drawn: without it "was in the history" would
    mean "is a negative".
    """
    log, n = examples.log, len(rows)
    user, history = log.user[rows], examples.histories(rows)
    length = (history != ABSENT).sum(axis=1)
    popular = log.item[examples.rows[rng.integers(len(examples.rows), size=n)]]
    uniform = examples.catalogue[rng.integers(len(examples.catalogue), size=n)]
    with_history = np.flatnonzero(length)
    which = np.concatenate([np.tile(np.arange(n), 3), np.tile(with_history, OWN_NEGATIVES)])
    place = (rng.random(len(which) - 3 * n) * length[which[3 * n :]]).astype(np.int64)
    item = np.concatenate([log.item[rows], popular, uniform, history[which[3 * n :], place]])

    own = (history[which] == item[:, None]).sum(axis=1) / np.maximum(length, 1)[which]
    noise = np.exp(examples.log_q[item]) + 1 / len(examples.catalogue) + OWN_NEGATIVES * own
    ids = np.concatenate(
        [
            drop_users(examples.users[user], rng)[which],
            drop_items(examples.items[item], rng),
            crosses(history[which], item),
        ],
        axis=1,
    )
    labels = (np.arange(len(which)) < n).astype(np.float32)
    return RankerBatch(ids, labels[:, None], np.log(noise).astype(np.float32)[:, None])


def drop_users(profile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy with some user ids and profile values out of vocabulary."""
    chance = np.array([USER_DROPOUT] + [FIELD_DROPOUT] * len(PROFILE_FIELDS))
    return np.where(rng.random(profile.shape) < chance, OUT_OF_VOCABULARY, profile)


def drop_items(items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy with some skus, brands, shops and categories out of vocabulary."""
    chance = np.array([SKU_DROPOUT] + [FIELD_DROPOUT] * (items.shape[1] - 1))
    return np.where(rng.random(items.shape) < chance, OUT_OF_VOCABULARY, items)

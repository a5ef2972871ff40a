"""TODO ecrs_models.data.log."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecrs.domain.actions import ActionType
from ecrs.domain.entities import HISTORY_LENGTH
from ecrs.features.encoding import ABSENT


@dataclass(frozen=True)
class Log:
    """Actions sorted by user and time, users and items by their row in the tables.

    `user`, `item`, int32, `ts`, int64, `type`, int8, shape (N,); actions of one user at one time
    (a basket) keep the file's order. `start`, int64, shape (users + 1,): user u has the rows
    [start[u], start[u + 1]).
    """

    user: np.ndarray
    item: np.ndarray
    ts: np.ndarray
    type: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, user: np.ndarray, item: np.ndarray, ts: np.ndarray, kind: np.ndarray, users: int) -> "Log":
        order = np.lexsort((ts, user))
        user = user[order]
        start = np.searchsorted(user, np.arange(users + 1))
        return cls(user, item[order], ts[order], kind[order], start)

    def __len__(self) -> int:
        return len(self.ts)

    def before(self, ts: int) -> "Log":
        return self._where(self.ts < ts)

    def between(self, begin: int, end: int) -> "Log":
        return self._where((self.ts >= begin) & (self.ts < end))

    def order_rows(self) -> np.ndarray:
        """The rows of orders."""
        return np.flatnonzero(self.type == ActionType.ORDER)

    def positive_rows(self) -> np.ndarray:
        """The rows that models learn to predict: orders, or all actions if the log has no orders at all."""
        orders = self.order_rows()
        return orders if len(orders) else np.arange(len(self))

    def positives(self) -> "Log":
        """The actions of `positive_rows`."""
        return self._where(self.positive_rows())

    def orders(self) -> "Log":
        """The orders."""
        return self._where(self.order_rows())

    @cached_property
    def basket(self) -> np.ndarray:
        """For each row, the first row of the same user and time: int64, shape (N,)."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        first = np.r_[True, (self.user[1:] != self.user[:-1]) | (self.ts[1:] != self.ts[:-1])]
        return np.flatnonzero(first)[np.cumsum(first) - 1]

    def histories(self, user: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The newest HISTORY_LENGTH items of each user before the row `end`, newest first.

        `user`, `end`, int, shape (M,); int32, shape (M, HISTORY_LENGTH), filled up with ABSENT.
        """
        if not len(self):
            return np.full((len(user), HISTORY_LENGTH), ABSENT, dtype=np.int32)
        rows = end[:, None] - 1 - np.arange(HISTORY_LENGTH)
        known = rows >= self.start[user][:, None]
        return np.where(known, self.item[np.where(known, rows, 0)], np.int32(ABSENT))

    def latest(self, user: np.ndarray) -> np.ndarray:
        """`histories` at the end of the log."""
        return self.histories(user, self.start[user + 1])

    def newest(self, count: int) -> "Log":
        """The last `count` rows of each user."""
        return self._where(np.arange(len(self)) >= self.start[self.user + 1] - count)

    def _where(self, keep: np.ndarray) -> "Log":
        """Some rows, by mask or by number in ascending order."""
        users = len(self.start) - 1
        user = self.user[keep]
        start = np.searchsorted(user, np.arange(users + 1))
        return Log(user, self.item[keep], self.ts[keep], self.type[keep], start)

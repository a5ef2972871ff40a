"""The log of actions in memory."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecrs.domain.actions import ActionType
from ecrs.domain.entities import HISTORY_LENGTH
from ecrs.features.encoding import ABSENT


@dataclass(frozen=True)
class Log:
    """Actions sorted by user, then time.

    `user` and `item`, int32, shape (N,): rows of the data set's tables; `ts`, int64, shape (N,): Unix
    seconds; `type`, int8, shape (N,): ActionType; `start`, int64, shape (users + 1,): the actions of user u
    are rows [start[u], start[u + 1]). Actions of one user with the same timestamp form a basket and keep the
    order of the file.
    """

    user: np.ndarray
    item: np.ndarray
    ts: np.ndarray
    type: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, user: np.ndarray, item: np.ndarray, ts: np.ndarray, kind: np.ndarray, users: int) -> "Log":
        """Sort actions, given as columns in any order. `users` is the number of users in the table."""
        order = np.lexsort((ts, user))
        user = user[order]
        start = np.searchsorted(user, np.arange(users + 1))
        return cls(user, item[order], ts[order], kind[order], start)

    def __len__(self) -> int:
        return len(self.ts)

    def before(self, ts: int) -> "Log":
        """Return the actions before `ts`, Unix seconds."""
        return self._where(self.ts < ts)

    def between(self, begin: int, end: int) -> "Log":
        """Return the actions from `begin` up to, but not including, `end`, Unix seconds."""
        return self._where((self.ts >= begin) & (self.ts < end))

    def order_rows(self) -> np.ndarray:
        """Return the row numbers of the orders."""
        return np.flatnonzero(self.type == ActionType.ORDER)

    def positive_rows(self) -> np.ndarray:
        """Return the row numbers of positive actions: orders, or all actions if the log has no order."""
        orders = self.order_rows()
        return orders if len(orders) else np.arange(len(self))

    def positives(self) -> "Log":
        """Return the positive actions, as defined by `positive_rows`."""
        return self._where(self.positive_rows())

    def orders(self) -> "Log":
        """Return the orders."""
        return self._where(self.order_rows())

    @cached_property
    def basket(self) -> np.ndarray:
        """For each action, the first row of its basket: int64, shape (N,)."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        first = np.r_[True, (self.user[1:] != self.user[:-1]) | (self.ts[1:] != self.ts[:-1])]
        return np.flatnonzero(first)[np.cumsum(first) - 1]

    def histories(self, user: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return the newest HISTORY_LENGTH items of each user before row `end` of the log, newest first.

        `user` and `end` are integers of shape (M,). The result is int32 of shape (M, HISTORY_LENGTH); shorter
        histories are padded with ABSENT.
        """
        if not len(self):
            return np.full((len(user), HISTORY_LENGTH), ABSENT, dtype=np.int32)
        rows = end[:, None] - 1 - np.arange(HISTORY_LENGTH)
        present = rows >= self.start[user][:, None]
        return np.where(present, self.item[np.where(present, rows, 0)], np.int32(ABSENT))

    def latest(self, user: np.ndarray) -> np.ndarray:
        """Return `histories` of the given users at the end of the log."""
        return self.histories(user, self.start[user + 1])

    def newest(self, count: int) -> "Log":
        """Return the last `count` actions of each user."""
        return self._where(np.arange(len(self)) >= self.start[self.user + 1] - count)

    def _where(self, keep: np.ndarray) -> "Log":
        """Select rows, by a mask or by ascending row numbers."""
        users = len(self.start) - 1
        user = self.user[keep]
        start = np.searchsorted(user, np.arange(users + 1))
        return Log(user, self.item[keep], self.ts[keep], self.type[keep], start)

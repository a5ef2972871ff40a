"""Model input for known users who are treated as new, to train and evaluate the service of new users."""

import numpy as np

from ecrs.domain.entities import PROFILE_FIELDS
from ecrs.features.encoding import OUT_OF_VOCABULARY, PADDING
from ecrs.features.ranking import EncodedAggregates
from ecrs_models.snapshots.aggregates import aggregate_by_user
from ecrs_models.snapshots.snapshot import Snapshot

SESSION_LENGTH = 5
"""Number of actions in the session of a new user."""


def new_user_rows(snapshot: Snapshot, users: np.ndarray, session: np.ndarray) -> np.ndarray:
    """Return the user tower input of users who are treated as new, int64 (N, USER_TOWER_COLUMNS).

    The profile is known, and the newest SESSION_LENGTH items where `session`, bool (N,), is True.
    """
    rows = snapshot.user_tower_input(users)
    rows[:, 0] = OUT_OF_VOCABULARY
    rows[~session, 1 + len(PROFILE_FIELDS) :] = PADDING
    rows[:, 1 + len(PROFILE_FIELDS) + SESSION_LENGTH :] = PADDING
    return rows


def session_aggregates(snapshot: Snapshot, users: np.ndarray, session: np.ndarray) -> list[EncodedAggregates]:
    """Return the aggregates of users who are treated as new.

    They cover the newest SESSION_LENGTH actions where `session`, bool (N,), is True, and are empty elsewhere.
    """
    catalogue = snapshot.tables.catalogue
    aggregates = aggregate_by_user(snapshot.log.newest(SESSION_LENGTH), len(catalogue))
    encoded = []
    for user, has_session in zip(users.tolist(), session, strict=True):
        item, numbers = aggregates.of(user)
        item, numbers = (item, numbers) if has_session else (item[:0], numbers[:0])
        encoded.append(EncodedAggregates(item.astype(np.int64), catalogue.groups[item], numbers))
    return encoded

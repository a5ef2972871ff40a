"""TODO ecrs_models.snapshots.new_users."""

import numpy as np

from ecrs.domain.entities import PROFILE_FIELDS
from ecrs.features.encoding import OUT_OF_VOCABULARY, PADDING
from ecrs.features.ranking import EncodedAggregates
from ecrs_models.snapshots.aggregates import aggregate_by_user
from ecrs_models.snapshots.snapshot import Snapshot

SESSION_LENGTH = 5
"""Products of a new user's session."""


def new_user_rows(snapshot: Snapshot, users: np.ndarray, session: np.ndarray) -> np.ndarray:
    """User tower input of users as if they were new: profile, and the newest few products in a session."""
    rows = snapshot.user_tower_input(users)
    rows[:, 0] = OUT_OF_VOCABULARY
    rows[~session, 1 + len(PROFILE_FIELDS) :] = PADDING
    rows[:, 1 + len(PROFILE_FIELDS) + SESSION_LENGTH :] = PADDING
    return rows


def session_aggregates(snapshot: Snapshot, users: np.ndarray, session: np.ndarray) -> list[EncodedAggregates]:
    """What is known of users as if they were new: the newest few actions where there is a session."""
    catalogue = snapshot.tables.catalogue
    aggregates = aggregate_by_user(snapshot.log.newest(SESSION_LENGTH), len(catalogue))
    pasts = []
    for user, shown in zip(users.tolist(), session, strict=True):
        item, numbers = aggregates.of(user)
        item, numbers = (item, numbers) if shown else (item[:0], numbers[:0])
        pasts.append(EncodedAggregates(item.astype(np.int64), catalogue.groups[item], numbers))
    return pasts

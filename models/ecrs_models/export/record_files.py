"""Writes the text files of a bundle: users' histories and aggregates, and item vectors."""

import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.aggregates import Aggregates
from ecrs.domain.entities import HISTORY_LENGTH
from ecrs.domain.files import format_history
from ecrs.storage.records import dump_aggregates
from ecrs_models.data.dataset import Dataset
from ecrs_models.snapshots.snapshot import Snapshot


def write_histories(data: Dataset, path: Path) -> None:
    """Write each user's newest interactions in the whole log. Users without any are left out."""
    log = data.log
    skus, ids = data.items["sku"].to_list(), data.users["user_id"].to_list()
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for user in np.unique(log.user):
            file.write(format_history(ids[user], interactions(data, user, skus)) + "\n")


def write_aggregates(snapshot: Snapshot, data: Dataset, path: Path) -> None:
    """Write each user's aggregates as a line `id:JSON`, with the JSON that the profile store holds."""
    skus, ids = data.items["sku"].to_list(), data.users["user_id"].to_list()
    with open(path, "wb") as file:
        for user in np.flatnonzero(np.diff(snapshot.aggregates.start)).tolist():
            file.write(
                ids[user].encode() + b":" + dump_aggregates(aggregates_of(snapshot, user, skus)) + b"\n"
            )


def aggregates_of(snapshot: Snapshot, user: int, skus: Sequence[str]) -> Aggregates:
    """Return the aggregates of the user in row `user`. `skus` are those of all items, by row."""
    item, numbers = snapshot.aggregates.of(user)
    return Aggregates(tuple(skus[row] for row in item), numbers)


def interactions(data: Dataset, user: int, skus: Sequence[str]) -> tuple[Interaction, ...]:
    """Return the newest HISTORY_LENGTH interactions of the user in row `user`, newest first."""
    log = data.log
    end = int(log.start[user + 1])
    rows = range(end - 1, max(int(log.start[user]), end - HISTORY_LENGTH) - 1, -1)
    return tuple(
        Interaction(skus[log.item[row]], int(log.ts[row]), ActionType(int(log.type[row]))) for row in rows
    )


def write_vectors(skus: Sequence[str], vectors: np.ndarray, path: Path) -> None:
    """Write lines `sku:[v1, v2, …]`. Nine significant digits are enough to restore every float32 exactly."""
    template = "%s:[" + ", ".join(["%.9g"] * vectors.shape[1]) + "]\n"
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for sku, vector in zip(skus, vectors.tolist(), strict=True):
            file.write(template % (sku, *vector))

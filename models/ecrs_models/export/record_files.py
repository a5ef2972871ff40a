"""The text files of a bundle: users' histories and aggregates, item vectors."""

import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
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
    """Each user's newest interactions of the whole log, users without any left out."""
    log = data.log
    skus, ids = data.items["sku"].to_list(), data.users["user_id"].to_list()
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for user in np.unique(log.user):
            file.write(format_history(ids[user], interactions(data, user, skus)) + "\n")


def write_aggregates(snapshot: Snapshot, data: Dataset, path: Path) -> None:
    """Lines `id:JSON`, the JSON as the profile store holds it."""
    skus, ids = data.items["sku"].to_list(), data.users["user_id"].to_list()
    with open(path, "wb") as file:
        for user in np.flatnonzero(np.diff(snapshot.aggregates.start)).tolist():
            file.write(
                ids[user].encode() + b":" + dump_aggregates(aggregates_of(snapshot, user, skus)) + b"\n"
            )


def aggregates_of(snapshot: Snapshot, user: int, skus: Sequence[str]) -> Aggregates:
    item, numbers = snapshot.aggregates.of(user)
    return Aggregates(tuple(skus[row] for row in item), numbers)


def interactions(data: Dataset, user: int, skus: Sequence[str]) -> tuple[Interaction, ...]:
    """The newest HISTORY_LENGTH interactions of the user in row `user`, newest first."""
    log = data.log
    end = int(log.start[user + 1])
    rows = range(end - 1, max(int(log.start[user]), end - HISTORY_LENGTH) - 1, -1)
    return tuple(
        Interaction(skus[log.item[row]], int(log.ts[row]), ActionType(int(log.type[row]))) for row in rows
    )


def write_vectors(skus: Sequence[str], vectors: np.ndarray, path: Path) -> None:
    """Lines `sku:[v1, v2, …]`; nine digits bring every float32 back exactly."""
    template = "%s:[" + ", ".join(["%.9g"] * vectors.shape[1]) + "]\n"
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for sku, vector in zip(skus, vectors.tolist(), strict=True):
            file.write(template % (sku, *vector))

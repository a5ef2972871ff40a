"""Golden examples: inputs with the outputs of the trained networks, to check that serving reproduces them."""

import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import paddle

from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.aggregates import Aggregates
from ecrs.domain.entities import HISTORY_LENGTH, PROFILE_FIELDS, UNKNOWN, Item, User
from ecrs.domain.provenance import Provenance, ProvenanceTable
from ecrs.features.ranker_input import RankerInputBuilder
from ecrs.features.ranking import CHANNELS
from ecrs.serving.served_model import TOLERANCE
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluation.saved_model import SavedModel
from ecrs_models.export.record_files import aggregates_of, interactions
from ecrs_models.snapshots.snapshot import Snapshot
from ecrs_models.training.pipeline import TrainedModels

GOLDEN_ROWS = 16


def golden_rows(trained: TrainedModels, data: Dataset, snapshot: Snapshot) -> dict[str, Any]:
    """Return the content of golden.json: users and items as records, the models' ids for them, and outputs.

    The outputs are those of the trained networks. Row n of the ranker is user n with item n, as of `now`. The
    rows include full, short and empty histories, a new user with a profile only, a session without a profile,
    and unknown and never-seen values.
    """
    users, items = golden_users(data, snapshot), golden_items(data)
    row = {sku: number for number, sku in enumerate(data.items["sku"])}
    for n, user in enumerate(users[: GOLDEN_ROWS // 4]):  # their own items, so that user-item features occur
        items[n] = golden_item(data, row[user.history[n % len(user.history)].sku])
    encoder = trained.encoder
    inputs = RankerInputBuilder(encoder, snapshot.tables.catalogue, trained.quantiles, snapshot.statistics)
    provenance: list[list[Provenance]] = [
        [("repurchase", n + 1, 2.5), ("similar", 0, 0.3)] if n < GOLDEN_ROWS // 2 else []
        for n in range(len(items))
    ]
    ranked = [
        inputs.ids(user, inputs.items([item]), ProvenanceTable.of([sources], CHANNELS), snapshot.cutoff)
        for user, item, sources in zip(users, items, provenance, strict=True)
    ]
    ids = {
        "user_tower": encoder.users(users),
        "item_tower": encoder.items(items),
        "ranker": np.concatenate(ranked),
    }
    networks: dict[str, Any] = {
        "user_tower": trained.two_tower.user_tower,
        "item_tower": trained.two_tower.item_tower,
        "ranker": trained.ranker,
    }
    golden: dict[str, Any] = {"now": snapshot.cutoff, "users": [raw_user(user) for user in users]}
    golden |= {"items": [asdict(item) for item in items], "provenance": provenance}
    for name, network in networks.items():
        outputs = network(paddle.to_tensor(ids[name])).numpy()
        golden[name] = {"ids": ids[name].tolist(), "outputs": outputs.tolist()}
    return golden


def raw_user(user: User) -> dict[str, Any]:
    """Convert a user to JSON values."""
    aggregates = {"skus": user.aggregates.skus, "numbers": user.aggregates.numbers.tolist()}
    history = [interaction._asdict() for interaction in user.history]
    return asdict(replace(user, aggregates=Aggregates(), history=())) | {
        "aggregates": aggregates,
        "history": history,
    }


def golden_users(data: Dataset, snapshot: Snapshot) -> list[User]:
    """Return GOLDEN_ROWS users: those with the longest histories, then edge cases of serving."""
    log = data.log
    skus = data.items["sku"].to_list()
    longest = np.argsort(log.start[:-1] - log.start[1:], kind="stable")
    step = np.linspace(0, min(len(longest), 4 * GOLDEN_ROWS) - 1, GOLDEN_ROWS - 6).astype(int)
    known: list[User] = []
    for row in longest[step].tolist():
        aggregates = aggregates_of(snapshot, row, skus)
        aggregates = Aggregates(aggregates.skus[:HISTORY_LENGTH], aggregates.numbers[:HISTORY_LENGTH])
        user_id, *fields = data.users.row(row)
        profile = dict(zip(PROFILE_FIELDS, fields, strict=True))
        known.append(User(user_id, **profile, history=interactions(data, row, skus), aggregates=aggregates))
    profile = {name: getattr(known[0], name) for name in PROFILE_FIELDS}
    unseen = dict.fromkeys(PROFILE_FIELDS, "never seen")
    session = tuple(Interaction(item.sku, item.ts, ActionType.VIEW) for item in known[0].history[:3])
    clicked, nonsense = Aggregates().plus(session), (Interaction("never seen", 1),)
    return [
        *known,
        replace(known[0], history=(), aggregates=Aggregates()),
        User(**profile),
        User(**profile, history=session, aggregates=clicked),
        User(history=session, aggregates=clicked),
        User(),
        User("never seen", **unseen, history=nonsense, aggregates=Aggregates().plus(nonsense)),
    ]


def golden_item(data: Dataset, row: int) -> Item:
    """Return the item in row `row` of the data set's table."""
    return Item(*data.items.row(row))


def golden_items(data: Dataset) -> list[Item]:
    """Return GOLDEN_ROWS items.

    Most are spread across the catalogue. The others are new items: one of known brand, shop and category, one
    whose attributes were never seen, and one whose attributes are unknown.
    """
    rows = np.linspace(0, data.items.height - 1, GOLDEN_ROWS - 3).astype(int)
    known = [golden_item(data, int(row)) for row in rows]
    first = known[0]
    return [
        *known,
        Item("never seen", first.brand, first.shop, first.category),
        Item("never seen", "never seen", "never seen", "never seen"),
        Item("never seen", UNKNOWN, UNKNOWN, UNKNOWN),
    ]


def check_golden_rows(model: SavedModel, golden: dict[str, Any]) -> None:
    """Raise DataError if outputs of the saved model differ from the golden ones by more than TOLERANCE."""
    outputs = model(np.array(golden["ids"], dtype=np.int64))
    difference = float(np.abs(outputs - np.array(golden["outputs"], dtype=np.float32)).max())
    if not difference <= TOLERANCE:
        raise DataError(
            f"the exported {model.signature.model} differs from its golden outputs by up to {difference:g}"
        )

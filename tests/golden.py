"""The golden rows of a bundle as users, items and provenance of the domain."""

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, Aggregates
from ecrs.domain.entities import Item, User
from ecrs.domain.provenance import ProvenanceTable
from ecrs.features.ranking import CHANNELS
from ecrs.rank.tables import load_ranker_inputs


def golden_users(bundle: Bundle) -> list[User]:
    users = []
    for raw in bundle.golden["users"]:
        history = tuple(Interaction(i["sku"], i["ts"], ActionType(i["type"])) for i in raw["history"])
        numbers = np.array(raw["aggregates"]["numbers"], dtype=np.float64).reshape(-1, len(AGGREGATE_COLUMNS))
        aggregates = Aggregates(tuple(raw["aggregates"]["skus"]), numbers)
        users.append(User(**(raw | {"history": history, "aggregates": aggregates})))
    return users


def golden_items(bundle: Bundle) -> list[Item]:
    return [Item(**raw) for raw in bundle.golden["items"]]


def golden_provenance(bundle: Bundle) -> ProvenanceTable:
    return ProvenanceTable.of(bundle.golden["provenance"], CHANNELS)


def golden_ranker_ids(bundle: Bundle) -> list[list[int]]:
    """Return the ranker's input encoded from the raw golden rows; row n is user n with item n."""
    inputs = load_ranker_inputs(bundle)
    items, provenance = golden_items(bundle), golden_provenance(bundle)
    return [
        inputs.ids(user, inputs.items([item]), provenance.take([n]), bundle.golden["now"])[0].tolist()
        for n, (user, item) in enumerate(zip(golden_users(bundle), items, strict=True))
    ]

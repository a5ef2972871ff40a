"""The golden rows of a bundle as the domain's users and candidates."""

import numpy as np

from ecrs.actions import ActionType, Interaction
from ecrs.bundle import Bundle
from ecrs.domain import Item, User
from ecrs.rank.inputs import RankerInputs
from ecrs.ranking_features import CHANNELS, Quantiles
from ecrs.sources import Sources
from ecrs.totals import TOTALS, Totals


def golden_users(bundle: Bundle) -> list[User]:
    users = []
    for raw in bundle.golden["users"]:
        history = tuple(Interaction(i["sku"], i["ts"], ActionType(i["type"])) for i in raw["history"])
        numbers = np.array(raw["totals"]["numbers"], dtype=np.float64).reshape(-1, len(TOTALS))
        totals = Totals(tuple(raw["totals"]["skus"]), numbers)
        users.append(User(**(raw | {"history": history, "totals": totals})))
    return users


def golden_items(bundle: Bundle) -> list[Item]:
    return [Item(**(raw | {"statistics": tuple(raw["statistics"])})) for raw in bundle.golden["items"]]


def golden_sources(bundle: Bundle) -> Sources:
    return Sources.of(bundle.golden["sources"], CHANNELS)


def golden_ranker_ids(bundle: Bundle) -> list[list[int]]:
    """The ranker's input, encoded anew from the raw rows, user n with item n."""
    inputs = RankerInputs(bundle.encoder, bundle.catalogue, Quantiles.load(bundle.path / "quantiles.json"))
    records, sources = inputs.records(golden_items(bundle)), golden_sources(bundle)
    return [
        inputs.ids(user, records.at([n]), sources.rows([n]), bundle.golden["now"])[0].tolist()
        for n, user in enumerate(golden_users(bundle))
    ]

"""The golden rows of a bundle as the domain's users and candidates."""

import numpy as np

from ecrs.actions import ActionType, Interaction
from ecrs.bundle import Bundle
from ecrs.domain import Item, User
from ecrs.rank.domain import Scored
from ecrs.totals import TOTALS, Totals


def golden_users(bundle: Bundle) -> list[User]:
    users = []
    for raw in bundle.golden["users"]:
        history = tuple(Interaction(i["sku"], i["ts"], ActionType(i["type"])) for i in raw["history"])
        numbers = np.array(raw["totals"]["numbers"], dtype=np.float64).reshape(-1, len(TOTALS))
        totals = Totals(tuple(raw["totals"]["skus"]), numbers)
        users.append(User(**(raw | {"history": history, "totals": totals})))
    return users


def golden_asked(bundle: Bundle) -> list[Scored]:
    items = [Item(**(raw | {"statistics": tuple(raw["statistics"])})) for raw in bundle.golden["items"]]
    sources = [tuple((name, place, score) for name, place, score in of) for of in bundle.golden["sources"]]
    return [Scored(item, of) for item, of in zip(items, sources, strict=True)]

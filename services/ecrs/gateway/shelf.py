"""What the gateway itself can put before a shop's customers: what sells, and the records it has seen."""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ecrs.bundle import Bundle
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain import parse_item
from ecrs.gateway.domain import MAX_ITEMS, Candidates
from ecrs.sources import Sources
from ecrs.totals import ORDERS
from ecrs.wire import from_item, to_totals

MAX_RECORDS = 20_000
"""Records kept: 4 MB were seen of them."""
FRESH_S = 1.0
"""A record that was kept so lately is not kept anew."""
SPARE = 2 * MAX_ITEMS
"""Of what sells, so many: what a user bought already can be left out and enough remains."""


class Shelf:
    """`popular`: records of what sells best, best first."""

    def __init__(self, popular: Sequence[ItemInfo], bundle_version: str) -> None:
        self._skus = [item.sku_id for item in popular]
        self._popular = {item.sku_id: item for item in popular}
        # With when it was kept, time.monotonic(), the longest ago first. Serialised: a message out of a reply
        # keeps all of the reply alive.
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._bundle_version = bundle_version

    @classmethod
    def of(cls, bundle: Bundle) -> "Shelf":
        """As of the bundle."""
        share = np.load(bundle.path / "recall" / "popular.npy")
        best = np.argsort(-share, kind="stable")[:SPARE].tolist()
        wanted = set(best)
        lines = enumerate(bundle.lines("products.dat"))
        items = {row: from_item(parse_item(line)) for row, line in lines if row in wanted}
        return cls([items[row] for row in best], bundle.version)

    def candidates(self, user: UserInfo, n: int, *, new_only: bool) -> Candidates:
        """The `n` best sellers; with `new_only`, none that the user is known to have bought."""
        bought: set[str] = set()
        if new_only:
            totals = to_totals(user.totals)
            bought = {totals.skus[row] for row in np.flatnonzero(totals.numbers[:, ORDERS])}
        skus = [sku for sku in self._skus if sku not in bought][:n]
        sources = Sources.of([[("popular", place, 0.0)] for place in range(1, len(skus) + 1)], ["popular"])
        return Candidates(skus, sources, self._bundle_version)

    def remember(self, items: Mapping[str, ItemInfo]) -> None:
        """Keep the newest MAX_RECORDS; `items`, by sku."""
        now = time.monotonic()
        for sku, item in items.items():
            seen = self._seen.get(sku)
            if seen is None or now - seen[1] > FRESH_S:
                self._seen.pop(sku, None)
                self._seen[sku] = item.SerializeToString(), now
        while len(self._seen) > MAX_RECORDS:
            del self._seen[next(iter(self._seen))]

    def records(self, skus: Iterable[str]) -> dict[str, ItemInfo]:
        """Those of `skus` that were seen, as they were then, or are popular, as they were in the bundle."""
        known = ((sku, self._record(sku)) for sku in skus)
        return {sku: item for sku, item in known if item is not None}

    def _record(self, sku: str) -> ItemInfo | None:
        seen = self._seen.get(sku)
        return self._popular.get(sku) if seen is None else ItemInfo.FromString(seen[0])

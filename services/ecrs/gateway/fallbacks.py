"""What the gateway recommends when a service fails: popular items, and item records as last read."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from cachetools import LRUCache, TTLCache

from ecrs.bundle import Bundle
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.aggregates import ORDERS
from ecrs.domain.files import parse_item
from ecrs.domain.provenance import ProvenanceTable
from ecrs.domain.sizes import MAX_ITEMS
from ecrs.gateway.answer import CandidateItems, Candidates
from ecrs.rpc.errors import BadRequest
from ecrs.storage.item_journal import ChangeKind, ItemChange
from ecrs.wire.messages import from_item, to_aggregates

MAX_ITEMS_KEPT = 20_000
"""Largest number of records kept of items that were read. This many took 4 MB."""
REFRESH_S = 1.0
"""Minimum age of a kept record before it is replaced by a newer one."""
STALE_S = 10.0
"""A record from cm may be this much older than a change: twice the time that cm caches it by default."""
POPULAR_KEPT = 2 * MAX_ITEMS
"""Popular items kept: twice as many as can be requested, because some are left out that the user bought."""


class FallbackCatalogue:
    """Popular items of one bundle, best first, and the item records last read from cm.

    Both follow the item changes that `apply` gets. Its memory does not grow with their number.
    """

    def __init__(self, popular: Sequence[ItemInfo], bundle_version: str) -> None:
        # In order of sales. A removed item has no record.
        self._popular: dict[str, ItemInfo | None] = {item.sku_id: item for item in popular}
        # Serialized, because a message that is part of a reply keeps the whole reply in memory.
        self._read: LRUCache[str, tuple[bytes, float]] = LRUCache(MAX_ITEMS_KEPT)
        self._changed: TTLCache[str, None] = TTLCache(MAX_ITEMS_KEPT, STALE_S, time.monotonic)
        self._bundle_version = bundle_version

    @classmethod
    def of(cls, bundle: Bundle) -> "FallbackCatalogue":
        """Build the catalogue from the most sold items of a bundle.

        Raises BundleError for a malformed line of products.dat or a malformed table.
        """
        share = bundle.sales_shares()
        best = np.argsort(-share, kind="stable")[:POPULAR_KEPT].tolist()
        rows = set(best)
        records = enumerate(bundle.records("products.dat", parse_item))
        items = {row: from_item(item) for row, item in records if row in rows}
        return cls([items[row] for row in best], bundle.version)

    def popular(self, user: UserInfo, n: int, *, new_only: bool) -> Candidates:
        """Return the `n` most sold items that are in stock.

        With `new_only`, items among the user's purchases are left out.
        """
        skus = list(islice(self._best(user, new_only=new_only), n))
        return Candidates(skus, _popular_provenance(len(skus)), self._bundle_version)

    def popular_items(
        self, user: UserInfo, n: int, *, new_only: bool, without: Collection[str]
    ) -> CandidateItems:
        """Like `popular`, but with the records, and without the items in `without`."""
        records = (self._record(sku) for sku in self._best(user, new_only=new_only) if sku not in without)
        items = list(islice((item for item in records if item and not item.out_of_stock), n))
        return CandidateItems(items, _popular_provenance(len(items)))

    def _best(self, user: UserInfo, *, new_only: bool) -> Iterator[str]:
        bought = _bought(user) if new_only else frozenset()
        in_stock = (sku for sku, item in self._popular.items() if item and not item.out_of_stock)
        return (sku for sku in in_stock if sku not in bought)

    def remember(self, items: Mapping[str, ItemInfo]) -> None:
        """Keep records, by sku, except those of items that changed within STALE_S: cm may have cached them.

        If there are too many, the least recently used ones are dropped.
        """
        now = time.monotonic()
        changed = self._changed if len(self._changed) else ()  # looking into an empty one takes time, too
        for sku, item in items.items():
            if sku in changed:
                continue
            kept = self._read.get(sku)
            if kept is None or now - kept[1] > REFRESH_S:
                self._read[sku] = item.SerializeToString(), now

    def apply(self, changes: Sequence[ItemChange]) -> None:
        """Apply item changes to the records that are kept, and to those of the popular items."""
        for change in changes:
            sku = change.sku
            self._changed[sku] = None
            if sku in self._popular:
                self._popular[sku] = _changed(self._popular[sku], change)
            if (kept := self._read.pop(sku, None)) is not None:
                record = _changed(ItemInfo.FromString(kept[0]), change)
                if record is not None:
                    self._read[sku] = record.SerializeToString(), kept[1]

    def records(self, skus: Iterable[str]) -> dict[str, ItemInfo]:
        """Return the records of `skus` as last read from cm.

        For popular items that were never read, these are the records of the bundle. Other items are left out.
        """
        records = ((sku, self._record(sku)) for sku in skus)
        return {sku: item for sku, item in records if item is not None}

    def _record(self, sku: str) -> ItemInfo | None:
        kept = self._read.get(sku)
        return self._popular.get(sku) if kept is None else ItemInfo.FromString(kept[0])


def _popular_provenance(n: int) -> ProvenanceTable:
    """Return the provenance of `n` items that the channel `popular` found, best first."""
    return ProvenanceTable.of([[("popular", position, 0.0)] for position in range(1, n + 1)], ["popular"])


def _changed(record: ItemInfo | None, change: ItemChange) -> ItemInfo | None:
    """Return the record after a change; None if the item was removed."""
    match change.kind:
        case ChangeKind.PUT:
            return from_item(change.item)
        case ChangeKind.REMOVED:
            return None
        case ChangeKind.STOCK if record is not None:
            changed = ItemInfo()
            changed.CopyFrom(record)  # the record may be part of an answer
            changed.out_of_stock = change.out_of_stock
            return changed
    return None


def _bought(user: UserInfo) -> frozenset[str]:
    """Return the skus that the user bought; none if the aggregates are invalid: a fallback must not raise."""
    try:
        aggregates = to_aggregates(user.aggregates)
    except BadRequest:
        return frozenset()
    return frozenset(aggregates.skus[row] for row in np.flatnonzero(aggregates.numbers[:, ORDERS]))

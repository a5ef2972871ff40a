"""What must be true of a shop's catalogue after a sequence of changes, in plain Python."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from ecrs.contract.cm_pb2 import CMResponse
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.domain.entities import UNKNOWN

NAMES = ("brand", "shopid", "cate")
"""The attributes of a product."""


@dataclass
class CatalogueModel:
    """The products that cm must know, by sku, and the `removed` ones, which it must not know."""

    known: dict[str, ItemInfo] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)

    def put(self, infos: Iterable[ItemInfo]) -> None:
        """Add products or replace their records."""
        for info in infos:
            values = {name: getattr(info, name) or UNKNOWN for name in NAMES}
            self.known[info.sku_id] = ItemInfo(sku_id=info.sku_id, out_of_stock=info.out_of_stock, **values)
            self.removed.discard(info.sku_id)

    def remove(self, skus: Iterable[str]) -> None:
        """Remove products; unknown ones may be among them."""
        for sku in skus:
            self.known.pop(sku, None)
            self.removed.add(sku)

    def set_stock(self, skus: Iterable[str], *, in_stock: bool) -> None:
        """Mark the known ones of the products."""
        for sku in skus:
            if sku in self.known:
                self.known[sku].out_of_stock = not in_stock

    @property
    def skus(self) -> list[str]:
        """All skus of which something is known, sorted."""
        return sorted(self.known.keys() | self.removed)

    @property
    def hidden(self) -> Set[str]:
        """The skus that must not be recommended."""
        return self.removed | {sku for sku, info in self.known.items() if info.out_of_stock}

    def violations(self, lookup: CMResponse) -> list[str]:
        """Return what is wrong with cm's reply to a request for all of `skus`."""
        found = {info.sku_id: info for info in lookup.item_infos}
        problems = [f"{sku!r} was removed, and cm knows it" for sku in self.removed & found.keys()]
        for sku, info in self.known.items():
            if sku not in found:
                problems.append(f"{sku!r} was put, and cm does not know it")
            elif found[sku] != info:
                problems.append(f"{sku!r} is {found[sku]}, expected {info}")
        return sorted(problems)


def like(info: ItemInfo, sku: str, *, out_of_stock: bool = False) -> ItemInfo:
    """Return a product with the attributes of `info`."""
    attributes = {name: getattr(info, name) for name in NAMES}
    return ItemInfo(sku_id=sku, out_of_stock=out_of_stock, **attributes)

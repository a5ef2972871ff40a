"""The products of a bundle by number: what tables of arrays speak of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from ecrs.features.encoding import FIRST_KNOWN, ITEM_GROUPS

NO_ID = -1
"""Stands for a product that the bundle does not know, and for a brand, shop or category it does not."""


@dataclass(frozen=True)
class Catalogue:
    """Products in the order of the bundle's `products.dat`.

    `skus`; `row`, a sku's place in it; `groups`, int64, shape (products + 1, ITEM_GROUPS): ids of
    brand, shop and category, NO_ID where unknown. The last row is all NO_ID, and is what NO_ID finds.
    """

    skus: Sequence[str]
    row: dict[str, int]
    groups: np.ndarray

    @classmethod
    def of(cls, skus: Sequence[str], item_table: np.ndarray) -> "Catalogue":
        """From the products' `Encoder.item_table`."""
        groups = np.concatenate([known_ids(item_table[:, 1:]), np.full((1, len(ITEM_GROUPS)), NO_ID)])
        return cls(skus, {sku: row for row, sku in enumerate(skus)}, groups)

    def __len__(self) -> int:
        return len(self.skus)

    def rows(self, skus: Iterable[str]) -> np.ndarray:
        """int64, NO_ID where unknown."""
        return np.fromiter(map(self.row.get, skus, repeat(NO_ID)), dtype=np.int64)


def known_ids(ids: np.ndarray) -> np.ndarray:
    """Vocabulary ids counted from 0, NO_ID for padding and out of vocabulary."""
    return np.maximum(ids - FIRST_KNOWN, NO_ID)

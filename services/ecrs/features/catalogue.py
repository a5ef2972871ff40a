"""The items of a bundle by row number, which the bundle's tables of arrays refer to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from ecrs.features.encoding import FIRST_KNOWN, ITEM_GROUPS

NO_ID = -1
"""Row or id of an item, brand, shop or category that the bundle does not know."""


@dataclass(frozen=True)
class Catalogue:
    """Items in the order of the bundle's `products.dat`.

    `row` maps a sku to its row. `groups`, int64, shape (items + 1, len(ITEM_GROUPS)), holds the ids of brand,
    shop and category, NO_ID where unknown. Its last row is all NO_ID, so that indexing with NO_ID (-1) works.
    """

    skus: Sequence[str]
    row: dict[str, int]
    groups: np.ndarray

    @classmethod
    def of(cls, skus: Sequence[str], item_table: np.ndarray) -> "Catalogue":
        """Build a catalogue from the skus and their rows of `Encoder.item_table`, in the same order."""
        groups = np.concatenate([known_ids(item_table[:, 1:]), np.full((1, len(ITEM_GROUPS)), NO_ID)])
        return cls(skus, {sku: row for row, sku in enumerate(skus)}, groups)

    def __len__(self) -> int:
        return len(self.skus)

    def rows(self, skus: Iterable[str]) -> np.ndarray:
        """Return the rows of `skus`: int64, shape (len(skus),), NO_ID for unknown ones."""
        return np.fromiter(map(self.row.get, skus, repeat(NO_ID)), dtype=np.int64)


def known_ids(ids: np.ndarray) -> np.ndarray:
    """Renumber vocabulary ids: known values count from 0, padding and out-of-vocabulary become NO_ID."""
    return np.maximum(ids - FIRST_KNOWN, NO_ID)

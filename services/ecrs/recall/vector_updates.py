"""Vectors of products that come, change and go while the platform runs."""

from collections.abc import Sequence

import numpy as np

from ecrs.bundle import Bundle
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import BadRequest
from ecrs.storage.vectors import VectorStore, check_version

UPDATE_LIMIT_S = 5.0
UNIT_TOLERANCE = 1e-3
"""How far from 1 the length of a vector may be: what the item tower gives is that long."""


class VectorUpdater:
    """Takes vectors of its own bundle only: those of another training look right and mean nothing."""

    def __init__(self, bundle: Bundle, width: int, vectors: VectorStore) -> None:
        self.version = bundle.version
        self._known = bundle.catalogue.row
        self._categories = bundle.encoder.vocabularies["category"]
        self._width = width
        self._vectors = vectors

    async def upsert(
        self,
        version: str,
        skus: Sequence[str],
        vectors: Sequence[Sequence[float]],
        categories: Sequence[str],
        deadline: Deadline,
    ) -> None:
        """Add products of these categories, or give known ones another vector.

        Raises BadRequest, naming the product, for a vector of a wrong width, with values that are not
        finite, or not of unit length; Unavailable for another version's.
        """
        check_version(self.version, version)
        for sku, vector in zip(skus, vectors, strict=True):
            if len(vector) != self._width:
                raise BadRequest(f"vectors: sku {sku!r}: {len(vector)} values, expected {self._width}")
        table = np.array(vectors, dtype=np.float32)
        finite = np.isfinite(table).all(axis=1)
        if not finite.all():
            raise BadRequest(f"vectors: sku {skus[int(np.argmin(finite))]!r}: a value is not finite")
        lengths = np.linalg.norm(table.astype(np.float64), axis=1)
        if (off := np.abs(lengths - 1)).max() > UNIT_TOLERANCE:
            worst = int(np.argmax(off))
            raise BadRequest(f"vectors: sku {skus[worst]!r}: length {lengths[worst]:.6g}, expected 1")
        cold_start_category = [
            0 if sku in self._known else self._categories.encode(category)
            for sku, category in zip(skus, categories, strict=True)
        ]
        timeout_s = deadline.share("vectors", limit_s=UPDATE_LIMIT_S)
        await self._vectors.upsert(version, skus, table, cold_start_category, timeout_s)

    async def remove(self, version: str, skus: Sequence[str], deadline: Deadline) -> None:
        """Let no search find these products; unknown ones are no fault."""
        check_version(self.version, version)
        await self._vectors.remove(version, skus, deadline.share("vectors", limit_s=UPDATE_LIMIT_S))

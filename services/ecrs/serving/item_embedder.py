"""Computes the vectors of items with the item tower of one bundle."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.entities import Item
from ecrs.rpc.deadlines import Deadline
from ecrs.serving.models import open_model
from ecrs.serving.served_model import ServedModel, check_golden

STEP_LIMIT_S = 5.0
"""Longest time for a run of the model."""


@asynccontextmanager
async def open_item_embedder(url: str, bundle: Bundle) -> AsyncIterator["ItemEmbedder"]:
    """Open the item tower of a bundle while the context is open; `url` and errors as for `open_model`."""
    async with open_model(url, bundle, "item_tower") as model:
        yield ItemEmbedder(bundle, model)


class ItemEmbedder:
    """Encodes items with a bundle's vocabularies and runs its item tower."""

    def __init__(self, bundle: Bundle, model: ServedModel) -> None:
        self.version = bundle.version
        self._golden = bundle.golden["item_tower"]
        self._encoder = bundle.item_encoder
        self._model = model
        self._checked = False

    async def embed(self, items: Sequence[Item], deadline: Deadline) -> np.ndarray:
        """Return the item tower's output: float32, shape (len(items), DIM), vectors of unit length.

        Before the first use, the model must reproduce its golden rows. Raises Unavailable if it does not,
        if it cannot be reached, or if it serves another version; DeadlineExceeded if it is too slow.
        """
        if not self._checked:
            await check_golden(self._model, self._golden, deadline.share("golden", STEP_LIMIT_S))
            self._checked = True
        return await self._model.infer(self._encoder.items(items), deadline.share("item_tower", STEP_LIMIT_S))

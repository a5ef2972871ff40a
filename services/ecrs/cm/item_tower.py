"""Items to vectors, by the item tower of one bundle."""

from collections.abc import Sequence

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.entities import ITEM_FIELDS, Item
from ecrs.features.encoding import Encoder
from ecrs.rpc.deadlines import Deadline
from ecrs.serving.served_model import ServedModel, check_golden

STEP_LIMIT_S = 5.0
"""Longest time for one step of a change to items."""


class ItemEmbedder:
    """Encodes items with the vocabularies of a bundle and runs its item tower."""

    def __init__(self, bundle: Bundle, model: ServedModel) -> None:
        self.version = bundle.version
        self._golden = bundle.golden["item_tower"]
        self._encoder = Encoder.load(bundle.path / "vocabulary", ITEM_FIELDS)
        self._model = model
        self._checked = False

    async def embed(self, items: Sequence[Item], deadline: Deadline) -> np.ndarray:
        """Item tower output: float32, shape (len(items), DIM), unit length.

        Raises Unavailable if the model is away, serves another version, or fails its golden rows.
        """
        if not self._checked:
            await check_golden(self._model, self._golden, deadline.share("golden", STEP_LIMIT_S))
            self._checked = True
        return await self._model.infer(self._encoder.items(items), deadline.share("item_tower", STEP_LIMIT_S))

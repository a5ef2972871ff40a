"""A saved model over any number of rows: what is exported is what is measured."""

from pathlib import Path

import numpy as np

from ecrs.serving.inprocess import InProcessModel
from ecrs.serving.signature import MAX_ROWS, ModelSignature


class SavedModel:
    """A model directory of a bundle, run in this process as the embedded profile runs it."""

    def __init__(self, directory: Path) -> None:
        self.signature = ModelSignature.load(directory)
        self._model = InProcessModel(directory, self.signature)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """ids, int64 (N, columns) → float32 (N, width), in batches of MAX_ROWS."""
        parts = [ids[start : start + MAX_ROWS] for start in range(0, len(ids), MAX_ROWS)]
        return np.concatenate([self._model.run(self.signature.check(part)) for part in parts])

"""Runs a saved model of a bundle on any number of rows, so that evaluation uses the files that are served."""

from pathlib import Path
from typing import Any

import numpy as np

from ecrs.serving.inprocess import InProcessModel
from ecrs.serving.signature import MAX_ROWS


class SavedModel:
    """A model directory of a bundle, run in this process as the embedded profile runs it.

    Pickled as the path of its directory, so that worker processes load it themselves. Raises BundleError if
    it cannot be loaded.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._model = InProcessModel(directory)
        self.signature = self._model.signature

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Run the model on ids, int64 (N, columns), in batches of MAX_ROWS. Returns float32 (N, width)."""
        parts = [ids[start : start + MAX_ROWS] for start in range(0, len(ids), MAX_ROWS)]
        return np.concatenate([self._model.run(self.signature.check(part)) for part in parts])

    def __reduce__(self) -> tuple[Any, ...]:
        return SavedModel, (self._directory,)

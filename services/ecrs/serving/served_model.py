"""The interface of a served model, and the check of its golden rows."""

from typing import Protocol

import numpy as np

from ecrs.bundle.opened import GoldenRows
from ecrs.rpc.errors import Unavailable
from ecrs.serving.signature import ModelSignature

TOLERANCE = 1e-5
"""Largest difference of a golden row's output from the output at training."""


class ServedModel(Protocol):
    """A model that runs in this process or on a model server."""

    signature: ModelSignature

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        """Return the model's output for `ids`: float32, shape (N, width).

        `ids` is an int64 matrix that matches the signature. Raises InvalidInput if it does not,
        DeadlineExceeded past `timeout_s`, and Unavailable if the model cannot be reached or its version is
        not the signature's.
        """


async def check_golden(model: ServedModel, golden: GoldenRows, timeout_s: float) -> None:
    """Run the golden rows through the serving path. Raises Unavailable unless the outputs match.

    `golden` holds `ids` and the `outputs` at training; they match if they differ by at most TOLERANCE.
    """
    outputs = await model.infer(np.array(golden["ids"], dtype=np.int64), timeout_s)
    off = float(np.abs(outputs - np.array(golden["outputs"], dtype=np.float32)).max())
    if not off <= TOLERANCE:
        raise Unavailable(
            f"{model.signature.model} {model.signature.version}: golden rows are off by {off:.2g}, "
            f"the tolerance is {TOLERANCE:.0g}"
        )

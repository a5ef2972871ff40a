"""The interface of a served model, and which implementation the settings ask for."""

from typing import Any, Protocol

import numpy as np

from ecrs.rpc.errors import Unavailable
from ecrs.serving.signature import ModelSignature

TOLERANCE = 1e-5
"""How far a served golden row may be from the output seen at training."""


class ServedModel(Protocol):
    signature: ModelSignature

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        """The model's output, float32, shape (N, width), for int64 `ids` as the signature says.

        Raises InvalidInput for ids the guard refuses, DeadlineExceeded past `timeout_s`, Unavailable
        when the model is away or serves another version than its signature's.
        """


async def check_golden(model: ServedModel, golden: dict[str, Any], timeout_s: float) -> None:
    """Run the golden rows through the serving path; Unavailable unless they come out as at training."""
    outputs = await model.infer(np.array(golden["ids"], dtype=np.int64), timeout_s)
    off = float(np.abs(outputs - np.array(golden["outputs"], dtype=np.float32)).max())
    if not off <= TOLERANCE:
        raise Unavailable(
            f"{model.signature.model} {model.signature.version}: golden rows are off by {off:.2g}, "
            f"allowed is {TOLERANCE:.0g}"
        )

"""The interface of a served model, and which implementation the settings ask for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import numpy as np

from ecrs.bundle import Bundle
from ecrs.kit.errors import Unavailable
from ecrs.model.signature import ModelSignature

TOLERANCE = 1e-5
"""How far a served golden row may be from the output seen at training."""


class ServedModel(Protocol):
    signature: ModelSignature

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        """The model's output, float32, shape (N, width), for int64 `ids` as the signature says.

        Raises InvalidInput for ids the guard refuses, OutOfTime past `timeout_s`, Unavailable
        when the model is away or serves another version than its signature's.
        """


@asynccontextmanager
async def open_model(url: str, bundle: Bundle, name: str) -> AsyncIterator[ServedModel]:
    """Model `name` of the bundle: in this process, or where `serving://host:port` says."""
    signature = ModelSignature.load(bundle.path / name)
    if url == "inprocess":
        from ecrs.model.inprocess import InProcessModel  # Paddle is there in the embedded profile only

        yield InProcessModel(bundle.path / name, signature)
    elif url.startswith("serving://"):
        from ecrs.model.paddle_serving import PaddleServingModel

        async with PaddleServingModel.connect(url.removeprefix("serving://"), signature) as model:
            yield model
    else:
        raise ValueError(f"{name}: {url!r} is neither inprocess nor serving://host:port")


async def check_golden(model: ServedModel, golden: dict[str, Any], timeout_s: float) -> None:
    """Run the golden rows through the serving path; Unavailable unless they come out as at training."""
    outputs = await model.infer(np.array(golden["ids"], dtype=np.int64), timeout_s)
    off = float(np.abs(outputs - np.array(golden["outputs"], dtype=np.float32)).max())
    if not off <= TOLERANCE:
        raise Unavailable(
            f"{model.signature.model} {model.signature.version}: golden rows are off by {off:.2g}, "
            f"allowed is {TOLERANCE:.0g}"
        )

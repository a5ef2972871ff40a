"""Chooses the implementation of a served model that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ecrs.bundle import Bundle
from ecrs.serving.expected_models import load_signature
from ecrs.serving.served_model import ServedModel


@asynccontextmanager
async def open_model(url: str, bundle: Bundle, name: str) -> AsyncIterator[ServedModel]:
    """Open model `name` of the bundle while the context is open.

    `url` is `inprocess`, or `serving://host:port` for a Paddle Serving server. Raises ValueError for another
    `url`, and BundleError if the model is not one that can be served.
    """
    signature = load_signature(bundle, name)
    if url == "inprocess":
        from ecrs.serving.inprocess import InProcessModel  # Paddle is installed in the embedded profile only

        yield InProcessModel(bundle.path / name)
    elif url.startswith("serving://"):
        from ecrs.serving.paddle_serving import PaddleServingModel

        async with PaddleServingModel.connect(url.removeprefix("serving://"), signature) as model:
            yield model
    else:
        raise ValueError(f"{name}: {url!r} is neither inprocess nor serving://host:port")

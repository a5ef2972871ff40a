"""TODO ecrs.serving.models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ecrs.bundle import Bundle
from ecrs.serving.served_model import ServedModel
from ecrs.serving.signature import ModelSignature


@asynccontextmanager
async def open_model(url: str, bundle: Bundle, name: str) -> AsyncIterator[ServedModel]:
    """Model `name` of the bundle: in this process, or where `serving://host:port` says."""
    signature = ModelSignature.load(bundle.path / name)
    if url == "inprocess":
        from ecrs.serving.inprocess import InProcessModel  # Paddle is there in the embedded profile only

        yield InProcessModel(bundle.path / name, signature)
    elif url.startswith("serving://"):
        from ecrs.serving.paddle_serving import PaddleServingModel

        async with PaddleServingModel.connect(url.removeprefix("serving://"), signature) as model:
            yield model
    else:
        raise ValueError(f"{name}: {url!r} is neither inprocess nor serving://host:port")

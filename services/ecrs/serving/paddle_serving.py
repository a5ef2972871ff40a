"""Inference on a Paddle Serving pipeline server, through its own gRPC protocol.

The server replies with float tensors, the version of its model under the key "version", and errors as
`err_no`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np

from ecrs.contract.pipeline_service_pb2 import Request, Tensor
from ecrs.contract.pipeline_service_pb2_grpc import PipelineServiceStub
from ecrs.rpc.client import open_channel, send
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.metrics import DEPENDENCY_SECONDS, timed
from ecrs.serving.signature import InvalidInput, ModelSignature

INT64 = 0
"""`elem_type` of an int64 tensor."""

BAD_REQUEST = 51
"""`err_no` of a request whose ids the server's guard refused."""


class PaddleServingModel:
    """A `ServedModel` on the server at the other end of `channel`."""

    def __init__(self, channel: grpc.aio.Channel, target: str, signature: ModelSignature) -> None:
        self.signature = signature
        self._peer = f"{signature.model} at {target}"
        self._stub = PipelineServiceStub(channel)

    @classmethod
    @asynccontextmanager
    async def connect(cls, target: str, signature: ModelSignature) -> AsyncIterator["PaddleServingModel"]:
        """Open a channel to `target`, `host:port`, while the context is open; yields the model."""
        async with open_channel(f"dns:///{target}") as channel:
            yield cls(channel, target, signature)

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        """Return the model's output, as `ServedModel.infer` does."""
        tensor = Tensor(name=self.signature.feed, elem_type=INT64, shape=ids.shape, int64_data=ids.ravel())
        request = Request(name=self.signature.model, tensors=[tensor])
        with timed(DEPENDENCY_SECONDS, self.signature.model):
            reply = await send(self._peer, self._stub.inference, request, timeout_s)
        if reply.err_no == BAD_REQUEST:
            raise InvalidInput(reply.err_msg)
        if reply.err_no:
            raise Unavailable(f"{self._peer} failed (err_no {reply.err_no})")
        version = dict(zip(reply.key, reply.value, strict=True)).get("version")
        if version != self.signature.version:
            raise Unavailable(f"{self._peer} serves version {version}, expected {self.signature.version}")
        (output,) = reply.tensors
        return np.array(output.float_data, dtype=np.float32).reshape(output.shape)

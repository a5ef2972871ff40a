"""Health check of the container: sends one real inference to the server.

`python health.py` exits with 0 if the answer is correct, otherwise with 1 after printing the reason. It
imports neither paddle nor the server package, because those imports take seconds.
"""

import importlib.util
import os
import sys
from pathlib import Path

import grpc

from ecrs.serving.signature import ModelSignature

PACKAGE = importlib.util.find_spec("paddle_serving_server").submodule_search_locations[0]
sys.path.append(str(Path(PACKAGE) / "pipeline" / "proto"))
import pipeline_service_pb2 as wire  # noqa: E402 - importable only after the path above is added

INFERENCE = "/baidu.paddle_serving.pipeline_serving.PipelineService/inference"


def main():
    """Return 0 if the server answers a row as its signature says; else print the reason and return 1."""
    signature = ModelSignature.load(os.environ["MODEL_DIR"])
    columns = len(signature.columns)
    row = wire.Tensor(name=signature.feed, elem_type=0, shape=[1, columns], int64_data=[0] * columns)
    with grpc.insecure_channel("127.0.0.1:9998") as channel:
        call = channel.unary_unary(INFERENCE, wire.Request.SerializeToString, wire.Response.FromString)
        try:
            reply = call(wire.Request(name=signature.model, tensors=[row]), timeout=2)
        except grpc.RpcError as error:
            print(f"no answer: {error.details()}")
            return 1
    if reply.err_no or list(reply.tensors[0].shape) != [1, signature.width]:
        print(f"wrong answer: err_no {reply.err_no} {reply.err_msg}")
        return 1
    print(f"{signature.model} {reply.value[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

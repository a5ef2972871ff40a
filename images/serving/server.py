"""A Paddle Serving pipeline server for one model: the stock DAG, with input checks and a clean shutdown.

    MODEL_DIR=/bundles/current/ranker python server.py

It serves `baidu.paddle_serving.pipeline_serving.PipelineService/inference` on port 9998. A request contains
`name` (the model's name or empty; any other gets the stock err_no 3002) and one int64 tensor. The reply
contains one float32 tensor, and the bundle version under the key "version". `err_no` is 0, BAD_REQUEST, or
one of the stock server's own codes (3000 and above) for faults that the caller did not cause. `method` is
ignored.

The process exits with 0 after SIGTERM or SIGINT, with BAD_MODEL if the model cannot be served, and with 1 if
the pipeline has died, so that the container's restart policy starts it again.
"""

import json
import logging
import os
import signal
import sys
import threading
import zlib  # noqa: F401 - must precede paddle, whose own copy of zlib makes a later import segfault on use
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
from paddle import inference
from paddle_serving_server.pipeline import Op, PipelineServer, RequestOp, ResponseOp
from paddle_serving_server.pipeline.pipeline_server import PipelineServicer
from paddle_serving_server.pipeline.proto import pipeline_service_pb2 as wire
from paddle_serving_server.pipeline.proto import pipeline_service_pb2_grpc as stubs

from ecrs.serving.model_check import PARAMETERS, PROGRAM, check_model
from ecrs.serving.signature import InvalidInput, ModelSignature

log = logging.getLogger("serving")

PORT = 9998
BAD_MODEL = 4
"""Exit status if the model cannot be loaded or does not reproduce its golden rows."""
BAD_REQUEST = 51
"""`err_no` of a refused request, from the range 50 to 99 that the stock server reserves for applications."""
INT64, FLOAT32 = 0, 1
"""Values of a tensor's elem_type."""
TOLERANCE = 1e-5
"""Largest absolute difference between a golden row's output and the one recorded at training."""
CLIENTS = 8
"""Calls processed at the same time: the number of threads, and the most calls in one automatic batch."""
GRACE_S = 5
PREDICTOR = {"thread_num": 1, "mem_optim": True, "ir_optim": False, "use_mkldnn": False}
"""Settings that were measured to be fastest for models of this size."""


class Guard(RequestOp):
    """Reads a request and refuses input that would crash the model or corrupt its results.

    Replaces the stock op's parsing completely, because that unpickles tensors of elem_type 13 and forwards
    strings to code that evaluates them.
    """

    def __init__(self, signature):
        self.signature = signature
        super().__init__()

    def unpack_request_package(self, request):
        """Return feed, log id, error code and error text, as the pipeline expects them."""
        try:
            feed = {self.signature.feed: self.signature.check(self.matrix(request))}
            return feed, request.logid, None, ""
        except InvalidInput as refused:
            log.warning("refused (log_id=%s): %s", request.logid, refused)
            return {}, request.logid, BAD_REQUEST, str(refused)

    def matrix(self, request):
        """Return the request's only tensor as an int64 matrix; InvalidInput if there is anything else."""
        feed = self.signature.feed
        if request.key or request.value:
            raise InvalidInput(f"string values are not accepted: send one int64 tensor '{feed}'")
        names = [tensor.name for tensor in request.tensors]
        if names != [feed]:
            raise InvalidInput("expected one tensor '{}', got {}".format(feed, names or "none"))
        (tensor,) = request.tensors
        if tensor.elem_type != INT64:
            raise InvalidInput(f"{feed}: expected elem_type 0 (int64), got {tensor.elem_type}")
        extra = [field.name for field, _ in tensor.ListFields() if field.name not in EXPECTED]
        if extra:
            raise InvalidInput("{}: {} is not accepted".format(feed, ", ".join(extra)))
        shape, values = list(tensor.shape), tensor.int64_data
        if len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] != len(values):
            raise InvalidInput(f"{feed}: shape {shape} does not hold {len(values)} values")
        return np.fromiter(values, dtype=np.int64, count=len(values)).reshape(shape)


EXPECTED = {"name", "elem_type", "shape", "int64_data"}
"""Fields that a request's tensor may set."""


class Answer(ResponseOp):
    """Packs the output as a tensor; the stock op sends its `repr` as a string instead."""

    def __init__(self, signature, input_ops):
        self.signature = signature
        super().__init__(input_ops=input_ops)

    def pack_response_package(self, channeldata):
        """Return the reply with the model's output and version."""
        # The stock packing is used for errors only, where it does not touch the output.
        reply = super().pack_response_package(channeldata) if channeldata.error_code else wire.Response()
        reply.key.append("version")
        reply.value.append(self.signature.version)
        if not channeldata.error_code:
            output = channeldata.parse()[self.signature.fetch]
            reply.tensors.add(
                name=self.signature.fetch, elem_type=FLOAT32, shape=output.shape, float_data=output.ravel()
            )
        return reply


def preflight(model_dir):
    """Check the model's files, load it, run it once and return its signature.

    The input is the smallest and the largest valid ids and the bundle's golden rows, if it has any. Raises an
    exception if anything is wrong, because the stock server reports "init success" even if it has loaded
    nothing.
    """
    signature = ModelSignature.load(model_dir)
    check_model(model_dir, signature)
    golden = model_dir.parent / "golden.json"
    rows = json.loads(golden.read_text(encoding="utf-8"))[signature.model] if golden.exists() else None
    ids = signature.extremes()
    if rows:
        ids = np.concatenate([ids, np.array(rows["ids"], dtype=np.int64)])
    # The stock LocalPredictor is not used: it kills its process group if it cannot load the model.
    config = inference.Config(str(model_dir / PROGRAM), str(model_dir / PARAMETERS))
    config.disable_gpu()
    config.switch_ir_optim(False)
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    predictor.get_input_handle(signature.feed).copy_from_cpu(signature.check(ids))
    predictor.run()
    output = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
    if output.shape != (len(ids), signature.width) or not np.isfinite(output).all():
        raise ValueError(
            f"expected finite outputs of shape {(len(ids), signature.width)}, got {output.shape}"
        )
    if rows:
        off = float(np.abs(output[2:] - np.array(rows["outputs"], dtype=np.float32)).max())
        if not off <= TOLERANCE:
            raise ValueError(f"golden rows are off by {off:.2g}, allowed is {TOLERANCE:.0g}")
    return signature


def pipeline(model_dir, signature):
    """Return the stock servicer over the DAG guard → model → answer."""
    guard = Guard(signature)
    model = Op(name=signature.model, input_ops=[guard])
    answer = Answer(signature, input_ops=[model])
    conf = {
        "rpc_port": PORT,
        "worker_num": CLIENTS,
        "build_dag_each_worker": False,  # True would bind to localhost only
        "dag": {"is_thread_op": True, "retry": 1},  # with 2, calls hang
        "op": {
            signature.model: {
                "concurrency": 1,  # higher values give wrong answers
                "timeout": -1,  # none; the caller's deadline limits the call
                "batch_size": CLIENTS,
                "auto_batching_timeout": 2,  # ms
                "local_service_conf": {
                    "client_type": "local_predictor",
                    "model_config": str(model_dir),
                    "fetch_list": [signature.fetch],
                    "device_type": 0,
                    **PREDICTOR,
                },
            }
        },
    }
    stock = PipelineServer(signature.model)
    stock.set_response_op(answer)
    stock.prepare_server(yml_dict=conf)  # fills in the defaults and loads the ops; does not start to serve
    return PipelineServicer(signature.model, answer, conf)


def main():
    """Check the model in MODEL_DIR and serve it until SIGTERM. Returns the exit code."""
    # Log to standard error, as a container should; the stock logger writes rotating files of 512 MB. Its
    # warnings only list the defaults that it fills in, and the DAG's errors repeat those of the op and the
    # guard.
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s", force=True)
    logging.getLogger("paddle_serving_server.pipeline.dag").setLevel(logging.CRITICAL)
    log.setLevel(logging.WARNING)
    model_dir = Path(os.environ["MODEL_DIR"]).resolve()  # stays with this version if `current` changes later
    try:
        signature = preflight(model_dir)
    except Exception as error:  # any exception is the reason why the container ends
        print(f"{model_dir} cannot be served: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_MODEL
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    servicer = pipeline(model_dir, signature)
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=CLIENTS),
        # Closes connections after a minute, so that clients resolve the name again and find new replicas.
        options=[("grpc.so_reuseport", 0), ("grpc.max_connection_age_ms", 60000)],
    )
    stubs.add_PipelineServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"[::]:{PORT}")
    server.start()
    print(f"serving {signature.model} {signature.version} on :{PORT}", flush=True)
    workers = servicer._dag_executor._dag._threads_or_proces
    while not stop.wait(timeout=1):
        if not all(worker.is_alive() for worker in workers):
            print("a worker of the pipeline has died", file=sys.stderr)
            return 1
    server.stop(GRACE_S).wait()
    print("stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

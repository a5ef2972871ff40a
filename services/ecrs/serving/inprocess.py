"""Inference in this process, with Paddle Inference."""

import zlib  # noqa: F401 - must precede paddle, whose own copy of zlib makes a later use of this one segfault
from pathlib import Path

import numpy as np
from paddle import inference

from ecrs.rpc.metrics import DEPENDENCY_SECONDS, timed
from ecrs.serving.signature import ModelSignature


class InProcessModel:
    """A `ServedModel` that runs on the caller's thread.

    A run takes a millisecond or less, so moving it to another thread would cost more than it saves. A run is
    never interrupted and never raises DeadlineExceeded.
    """

    def __init__(self, model_dir: Path, signature: ModelSignature) -> None:
        self.signature = signature
        config = inference.Config(
            str(model_dir / "inference.pdmodel"), str(model_dir / "inference.pdiparams")
        )
        # The fastest settings measured for models this small.
        config.disable_gpu()
        config.switch_ir_optim(False)
        config.set_cpu_math_library_num_threads(1)
        config.disable_glog_info()
        self._predictor = inference.create_predictor(config)
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        """Return the model's output, as `ServedModel.infer` does; `timeout_s` is ignored."""
        ids = self.signature.check(ids)
        with timed(DEPENDENCY_SECONDS, self.signature.model):
            return self.run(ids)

    def run(self, ids: np.ndarray) -> np.ndarray:
        """Run the model on valid `ids`. Not thread-safe, because the predictor is not."""
        self._input.reshape(ids.shape)
        self._input.copy_from_cpu(ids)
        self._predictor.run()
        return self._output.copy_to_cpu()

"""A model in this process, by Paddle Inference."""

import zlib  # noqa: F401 - before paddle: its own copy of zlib else makes a later use segfault
from pathlib import Path

import numpy as np
from paddle import inference

from ecrs.rpc.metrics import DEPENDENCY_SECONDS, timed
from ecrs.serving.signature import ModelSignature


class InProcessModel:
    """A `ServedModel` on the caller's own thread: a run of a millisecond or less is not worth the way to
    another and back. Nothing waits, so no run is out of time."""

    def __init__(self, model_dir: Path, signature: ModelSignature) -> None:
        self.signature = signature
        config = inference.Config(
            str(model_dir / "inference.pdmodel"), str(model_dir / "inference.pdiparams")
        )
        # Measured fastest for models this small.
        config.disable_gpu()
        config.switch_ir_optim(False)
        config.set_cpu_math_library_num_threads(1)
        config.disable_glog_info()
        self._predictor = inference.create_predictor(config)
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        ids = self.signature.check(ids)
        with timed(DEPENDENCY_SECONDS, self.signature.model):
            return self.run(ids)

    def run(self, ids: np.ndarray) -> np.ndarray:
        """`infer`, without its checks: one at a time, for a predictor is not thread-safe."""
        self._input.reshape(ids.shape)
        self._input.copy_from_cpu(ids)
        self._predictor.run()
        return self._output.copy_to_cpu()

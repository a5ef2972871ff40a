"""Inference in this process, with Paddle Inference."""

import zlib  # noqa: F401 - must precede paddle, whose own copy of zlib makes a later use of this one segfault
from pathlib import Path

import numpy as np
from paddle import inference

from ecrs.bundle.errors import BundleError
from ecrs.rpc.metrics import DEPENDENCY_SECONDS, timed
from ecrs.serving.model_check import PARAMETERS, PROGRAM, check_model
from ecrs.serving.signature import ModelSignature

PADDLE_ERRORS = (ValueError, RuntimeError, OSError, IndexError, MemoryError, SystemError)
"""What Paddle raises for a model that it cannot load or run, by the kind of its own error."""


class InProcessModel:
    """A `ServedModel` that runs on the caller's thread.

    A run takes a millisecond or less, so moving it to another thread would cost more than it saves. A run is
    never interrupted and never raises DeadlineExceeded.

    Raises BundleError if the files in `model_dir` are not those of a model that can be served: see
    `check_model`.
    """

    def __init__(self, model_dir: Path) -> None:
        try:
            self.signature = ModelSignature.load(model_dir)
            check_model(model_dir, self.signature)
        except (OSError, ValueError) as error:
            raise BundleError(str(error)) from error
        try:
            self._load(model_dir)
            outputs = self.run(self.signature.extremes())
        except PADDLE_ERRORS as error:
            raise BundleError(f"{model_dir}: {_summary(error)}") from error
        if outputs.shape != (2, self.signature.width):
            raise BundleError(
                f"{model_dir}: outputs of shape {outputs.shape}, expected (2, {self.signature.width})"
            )

    def _load(self, model_dir: Path) -> None:
        config = inference.Config(str(model_dir / PROGRAM), str(model_dir / PARAMETERS))
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


def _summary(error: BaseException) -> str:
    """Return an error of Paddle in one line. Its text ends with the summary, after C++ stack traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line]
    return f"Paddle cannot run it: {(named or lines or [type(error).__name__])[-1]}"

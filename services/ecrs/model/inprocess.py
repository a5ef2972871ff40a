"""A model in this process, by Paddle Inference."""

import asyncio
import zlib  # noqa: F401 - before paddle: its own copy of zlib else makes a later use segfault
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from paddle import inference

from ecrs.kit.limit import within
from ecrs.model.signature import ModelSignature


class InProcessModel:
    """A `ServedModel` on one thread: a predictor is not thread-safe, and `run` frees the GIL."""

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=signature.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    async def infer(self, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        ids = self.signature.check(ids)
        done = asyncio.get_running_loop().run_in_executor(self._thread, self.run, ids)
        return await within(timeout_s, self.signature.model, done, dependency=self.signature.model)

    def run(self, ids: np.ndarray) -> np.ndarray:
        """`infer`, blocking and on the calling thread; one at a time, ids as `check` returns them."""
        self._input.reshape(ids.shape)
        self._input.copy_from_cpu(ids)
        self._predictor.run()
        return self._output.copy_to_cpu()

"""The training loop. It reports progress, can be killed at any time, and continues with identical results."""

import math
import time
import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from paddle.utils import unique_name

from ecrs_models.progress import Step
from ecrs_models.training.weights import load_weights, save_weights, weights_path

WEIGHT_DECAY = 0.01


class TrainingJob(Protocol):
    """The training of one model. The batch of a step depends only on the seed and the step's number."""

    name: str
    network: Any
    rate: float
    steps: int

    def batch(self, step: int) -> tuple[Any, int]:
        """Return the network's input for a step, and its number of rows."""


def fit(job: TrainingJob, out: Path, progress: Step, checkpoint_s: float) -> None:
    """Run the job's steps, from its checkpoint if there is one, and write the weights to `out`.

    A checkpoint is written every `checkpoint_s` seconds. The learning rate decays from `job.rate` to 0 along
    a cosine.
    """
    checkpoint = checkpoint_path(out, job.name)
    with unique_name.guard():  # covers the first step, at which the optimizer names its state
        optimizer = paddle.optimizer.AdamW(
            job.rate, parameters=job.network.parameters(), weight_decay=WEIGHT_DECAY
        )
        step = _resume(checkpoint, job.network, optimizer)
        job.network.train()
        started, rows, saved, mean = time.monotonic(), 0, time.monotonic(), None
        while step < job.steps:
            batch, size = job.batch(step)
            optimizer.set_lr(job.rate * 0.5 * (1 + math.cos(math.pi * step / job.steps)))
            loss = job.network.loss(batch)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            step, rows, value = step + 1, rows + size, float(loss)
            mean = value if mean is None else 0.98 * mean + 0.02 * value
            now = time.monotonic()
            progress.update(step, f"loss {mean:.4f}, {rows / (now - started):,.0f} rows/s")
            if now - saved >= checkpoint_s:
                _save_checkpoint(checkpoint, step, job.network, optimizer)
                saved = now
    save_weights(weights_path(out, job.name), job.network.state_dict())
    checkpoint.unlink(missing_ok=True)


def checkpoint_path(out: Path, name: str) -> Path:
    """Return the path of the checkpoint of model `name`."""
    return out / f"{name}.checkpoint.npz"


def _save_checkpoint(path: Path, step: int, network: Any, optimizer: Any) -> None:
    state = {f"network/{name}": value for name, value in network.state_dict().items()}
    state |= {f"adam/{name}": value for name, value in optimizer.state_dict().items()}
    save_weights(path, {"step": np.int64(step), **state})


def _resume(checkpoint: Path, network: Any, optimizer: Any) -> int:
    """Load the checkpoint, if it exists, into network and optimizer. Returns the next step."""
    if not checkpoint.is_file():
        return 0
    state = load_weights(checkpoint)
    for part, owner in (("network/", network), ("adam/", optimizer)):
        own = {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
        owner.set_state_dict(own)
    return int(state["step"])

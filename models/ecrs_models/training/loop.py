"""The training loop. It reports progress, can be killed at any time, and continues with identical results."""

import math
import time
import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from pathlib import Path
from typing import Any, Protocol

import paddle
from paddle.utils import unique_name

from ecrs_models.progress import Step

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
    checkpoint = out / f"{job.name}.checkpoint"
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
                adam = optimizer.state_dict()
                _save(checkpoint, {"step": step, "network": job.network.state_dict(), "adam": adam})
                saved = now
    _save(weights_path(out, job.name), job.network.state_dict())
    checkpoint.unlink(missing_ok=True)


def weights_path(out: Path, name: str) -> Path:
    """Return the path of the weights of model `name`."""
    return out / f"{name}.pdparams"


def load_weights(out: Path, name: str, network: Any) -> None:
    """Load the weights of model `name` into a network. Raises FileNotFoundError."""
    path = weights_path(out, name)
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    network.set_state_dict(paddle.load(str(path)))


def _resume(checkpoint: Path, network: Any, optimizer: Any) -> int:
    """Load the checkpoint, if it exists, into network and optimizer. Returns the next step."""
    if not checkpoint.is_file():
        return 0
    state = paddle.load(str(checkpoint))
    network.set_state_dict(state["network"])
    optimizer.set_state_dict(state["adam"])
    return int(state["step"])


def _save(path: Path, state: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.new")
    paddle.save(state, str(draft))
    draft.replace(path)

"""TODO ecrs_models.training.loop."""

import math
import time
import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from pathlib import Path
from typing import Any, Protocol

import paddle
from paddle.utils import unique_name
from rich.progress import Progress


class TrainingJob(Protocol):
    """One model's training, step by step; a step depends on the seed and its number alone."""

    name: str
    network: Any
    rate: float
    steps: int

    def batch(self, step: int) -> tuple[Any, int]:
        """The network's input for a step and how many rows it has."""


def fit(job: TrainingJob, out: Path, progress: Progress, checkpoint_s: float) -> None:
    """Run the job's steps from its checkpoint, if there is one, to its end; write its weights."""
    checkpoint = out / f"{job.name}.checkpoint"
    with unique_name.guard():  # Adam's state goes by names too, made at its first step
        optimizer = paddle.optimizer.AdamW(job.rate, parameters=job.network.parameters(), weight_decay=0.01)
        step = _resume(checkpoint, job.network, optimizer)
        bar = progress.add_task(job.name, total=job.steps, completed=step, loss="", rate="")
        job.network.train()
        begun, rows, saved, mean = time.monotonic(), 0, time.monotonic(), None
        while step < job.steps:
            batch, size = job.batch(step)
            optimizer.set_lr(job.rate * 0.5 * (1 + math.cos(math.pi * step / job.steps)))
            paddle.seed(step)  # of the dropout: a resumed step draws what it would have drawn
            loss = job.network.loss(batch)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            step, rows, value = step + 1, rows + size, float(loss)
            mean = value if mean is None else 0.98 * mean + 0.02 * value
            now = time.monotonic()
            progress.update(bar, completed=step, loss=f"{mean:.4f}", rate=f"{rows / (now - begun):,.0f}")
            if now - saved >= checkpoint_s:
                adam = optimizer.state_dict()
                _save(checkpoint, {"step": step, "network": job.network.state_dict(), "adam": adam})
                saved = now
    _save(out / f"{job.name}.pdparams", job.network.state_dict())
    checkpoint.unlink(missing_ok=True)


def _resume(checkpoint: Path, network: Any, optimizer: Any) -> int:
    """Put the checkpoint's state into network and optimizer; the step to go on with."""
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

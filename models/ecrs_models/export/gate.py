"""Is a new bundle as good as the one that serves? Measured on the same weeks, which neither has seen."""

from typing import Any

from ecrs.bundle import Bundle
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluation.evaluate import LoadedBundle, evaluate
from ecrs_models.evaluation.period import TASKS
from ecrs_models.evaluation.results import OURS

METRIC = "recall@20"
TOLERANCE = 0.03
"""How much worse, of its value, counts as the noise of a training."""


def compare(metrics: dict[str, Any], current: Bundle, data: Dataset, start: int) -> dict[str, Any]:
    """Both bundles' METRIC by task, or why they cannot be compared; DataError if the new one is worse."""
    if "tasks" not in metrics:
        return {"not_compared": "the new bundle was not measured"}
    if current.manifest.data["name"] != data.name:
        return {"not_compared": f"{current.version} is of {current.manifest.data['name']}"}
    if current.manifest.training["until"] > start:
        return {"not_compared": f"{current.version} was trained on the weeks to measure"}
    try:
        then = LoadedBundle.of(current, data, start)
        found = evaluate(data, then.models, then.snapshot)
    except DataError as error:
        return {"not_compared": str(error)}
    theirs = {task: measured.means() for task, measured in found.tasks.items()}
    rows: dict[str, Any] = {"current": current.version}
    for task in TASKS:
        new, old = metrics["tasks"][task][OURS][METRIC], theirs[task][OURS][METRIC]
        rows[task] = {"new": new, "current": old}
        if new < old * (1 - TOLERANCE):
            raise DataError(
                f"not exported: {METRIC} in task {task} is {new:.4f}, of the current bundle "
                f"{current.version} {old:.4f} (--force exports anyway)"
            )
    return rows

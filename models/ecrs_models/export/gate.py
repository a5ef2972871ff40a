"""The gate of an export: compares a new bundle with the current one on a period after both trainings."""

from typing import Any

from ecrs.bundle import Bundle
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluation.evaluate import LoadedBundle, evaluate
from ecrs_models.evaluation.period import TASKS
from ecrs_models.evaluation.results import OURS
from ecrs_models.training.settings import TrainingSettings

METRIC = "recall@20"
TOLERANCE = 0.03
"""Relative decrease of METRIC that is attributed to the randomness of training."""


def compare(metrics: dict[str, Any], current: Bundle, data: Dataset, start: int) -> dict[str, Any]:
    """Compare the `metrics` of a new bundle with those of the current one on the period from `start`.

    Returns METRIC of both by task, or `not_compared` with the reason. Raises DataError if the new bundle is
    worse than the current one by more than TOLERANCE in one of the tasks.
    """
    if "tasks" not in metrics:
        return {"not_compared": "the new bundle was not evaluated"}
    if current.manifest.data["name"] != data.name:
        return {"not_compared": f"{current.version} was made from {current.manifest.data['name']}"}
    if TrainingSettings.read(current.manifest.training).until > start:
        return {"not_compared": f"{current.version} was trained on the evaluation period"}
    try:
        then = LoadedBundle.of(current, data, start)
        evaluation = evaluate(data, then.models, then.snapshot)
    except DataError as error:
        return {"not_compared": str(error)}
    means = {task: results.means() for task, results in evaluation.tasks.items()}
    comparison: dict[str, Any] = {"current": current.version}
    for task in TASKS:
        new, old = metrics["tasks"][task][OURS][METRIC], means[task][OURS][METRIC]
        comparison[task] = {"new": new, "current": old}
        if new < old * (1 - TOLERANCE):
            raise DataError(
                f"not exported: {METRIC} in task {task} is {new:.4f}, worse than {old:.4f} of the current "
                f"bundle {current.version} (--force exports anyway)"
            )
    return comparison

"""Builds a bundle from a shop's data in one call."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ecrs.bundle import CURRENT, Bundle, BundleError, UntrustedBundle
from ecrs_models.data.dataset import ABOUT, Dataset
from ecrs_models.evaluation.results import HISTORY, OURS, POPULARITY
from ecrs_models.prepare import COMPLETE_JOURNEY, complete_journey, files
from ecrs_models.progress import progress

FULL_QUALITY = {"all": (0.1455, 0.3594), "new": (0.0324, 0.0500)}
"""recall@20 and NDCG@20 of a full bundle of the Complete Journey, from docs/reference/quality.md."""

FULL_TIME = 2.4
"""Build time of a full bundle divided by that of a quick one, from docs/reference/quality.md."""

T = TypeVar("T")


def build(
    source: str,
    bundles: Path,
    work: Path,
    *,
    seed: int = 1,
    force: bool = False,
    quick: bool = False,
    say: Callable[[str], None],
) -> Bundle:
    """Return the current bundle of `bundles`; build it first if it is missing or damaged, or with `force`.

    `source` is "complete-journey", a prepared data set, or a directory of a shop's own files. `quick` trains
    with `TrainingSettings.quick`; without it, a quick bundle is replaced by a fully trained one. `work` keeps
    data set and training, so that an interrupted build continues. Raises DataError, and UntrustedBundle if
    the current bundle is not signed by a trusted key.
    """
    if not force:
        try:
            current = Bundle.open(bundles / CURRENT)
        except UntrustedBundle:
            raise  # it may be a good bundle of another machine: not for a build to replace
        except BundleError as error:
            say(f"building: {error}")
        else:
            kind = "a quick bundle" if is_quick(current) else "a bundle"
            found = f"{bundles / CURRENT} is {kind}, {current.version}"
            if quick or not is_quick(current):
                say(f"nothing to build: {found} (--force builds anew)")
                return current
            say(f"building: {found}")

    def step(name: str, run: Callable[[], T]) -> T:
        started = time.monotonic()
        result = run()
        say(f"{name}: {time.monotonic() - started:.1f} s")
        return result

    data = step("prepare", lambda: Dataset.load(prepare_source(source, work / "data", say)))
    from ecrs_models.export import bundle_writer  # paddle takes a second to import
    from ecrs_models.training import pipeline
    from ecrs_models.training.settings import TrainingSettings

    out = work / "train" / (f"{data.name}-quick" if quick else data.name)
    settings = TrainingSettings(until=data.split.test_from, window_s=data.split.window_s, seed=seed)
    settings = settings.quick() if quick else settings
    step("train", lambda: pipeline.train(data, out, settings))
    with progress() as shown:
        version = step(
            "export and evaluate", lambda: bundle_writer.export(pipeline.load(out), data, bundles, shown)
        )
    built = Bundle.open(bundles / version)
    for line in quality(built):
        say(line)
    return built


def is_quick(bundle: Bundle) -> bool:
    """Whether the bundle was trained with `TrainingSettings.quick`."""
    return bundle.manifest.training.get("is_quick") is True


def quality(bundle: Bundle) -> list[str]:
    """One line per task: recall@20 and NDCG@20 of the bundle and of its baseline, as measured at export."""
    lines = []
    for task, rival in (("all", HISTORY), ("new", POPULARITY)):
        rows = bundle.metrics.get("tasks", {}).get(task)
        if rows is None:
            return [f"not evaluated: {bundle.metrics.get('not_measured')}"]
        ours, theirs = (
            f"{rows[name]['recall@20']:.4f} / {rows[name]['ndcg@20']:.4f}" for name in (OURS, rival)
        )
        lines.append(f"task {task}: recall@20 / NDCG@20 {ours}; {rival}: {theirs}")
    return lines


def prepare_source(source: str, under: Path, say: Callable[[str], None]) -> Path:
    """The prepared data set of `source`, written under `under` unless it is one already."""
    if source == COMPLETE_JOURNEY:
        out = under / COMPLETE_JOURNEY
        complete_journey.prepare(out)
        return out
    if (Path(source) / ABOUT).is_file():
        return Path(source)
    out = under / Path(source).resolve().name
    say(files.prepare(Path(source), out).summary())
    return out

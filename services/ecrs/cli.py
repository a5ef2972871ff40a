"""`ecrs`: what people type."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import ecrs_models.cli
import ecrs_seed.cli
from ecrs import client, items
from ecrs.bundle import Bundle, BundleError
from ecrs.kit.errors import Fault
from ecrs.kit.log import only_warnings
from ecrs.kit.ports import PORTS
from ecrs.kit.settings import BundleSettings
from ecrs.probe import state
from ecrs_models.errors import DataError

app = typer.Typer(
    help="ECRS: recommendations from purchases.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(ecrs_seed.cli.app, name="seed")
app.add_typer(items.app, name="item")
app.add_typer(ecrs_models.cli.app)  # imports what the `train` extra brings when a verb needs it

_ERRORS = Console(stderr=True)
_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}


@app.command()
def up(
    bundle: Annotated[Path | None, typer.Argument(help="a bundle; default artifacts/bundles/current")] = None,
    run_dir: Annotated[Path, typer.Option(help="for the store's data, the logs and what is running")] = Path(
        "artifacts/run"
    ),
) -> None:
    """Start the whole platform on this machine, without Docker, until Ctrl-C."""
    only_warnings()
    opened = Bundle.open(bundle or BundleSettings().bundle)
    asyncio.run(_up(opened, run_dir))


async def _up(bundle: Bundle, run_dir: Path) -> None:
    from ecrs.embedded import platform

    serving = asyncio.current_task()
    assert serving is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    try:
        async with platform(bundle, run_dir, say=typer.echo):
            gateway = f"127.0.0.1:{PORTS['gateway']}"
            typer.echo(f"up: bundle {bundle.version}, gateway on {gateway}. Ctrl-C stops it.")
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        typer.echo("stopped")


@app.command()
def demo() -> None:
    """Real purchases to recommendations: prepare, train, export, start, ask, stop."""
    from ecrs.demo import run

    only_warnings()
    run(typer.echo)


@app.command()
def serve(name: Annotated[str, typer.Argument(help=" | ".join(PORTS))]) -> None:
    """Run one service; its settings come from the environment."""
    if name not in PORTS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(PORTS)}")
    from ecrs.serve import serve as serve_until_stopped

    asyncio.run(serve_until_stopped(name))


@app.command()
def health() -> None:
    """Print whether each service here is SERVING, why not, and what it lacks; exit 1 if one is not."""
    states = {name: state(name) for name in PORTS}
    for name, found in states.items():
        typer.echo(f"{name:8} {found}")
    raise typer.Exit(1 if any(found.reason for found in states.values()) else 0)


def _client(context: typer.Context) -> None:
    client.main([context.command.name or "", *context.args])


for _name, _help in {
    "as": "Recommend: USER_ID, or AGE SEX CITY_LEVEL PROVINCE CITY COUNTY.",
    "um": "A user's profile and history: USER_ID.",
    "cm": "Product records: SKU[,SKU…].",
    "recall": "Candidates for a known user: USER_ID.",
    "rank": "The original's example: user 1 and item 1.",
}.items():
    app.command(_name, help=_help, context_settings=_ANYTHING)(_client)


def main() -> None:
    """Run a command; faults that a person can act on are one line, without a traceback."""
    from ecrs.embedded import StartError

    try:
        app()
    except (BundleError, StartError, DataError, Fault) as error:
        _ERRORS.print(f"ecrs: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(1) from None

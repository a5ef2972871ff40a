"""The commands `ecrs seed redis`, `ecrs seed milvus` and `ecrs seed milvus-users`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ecrs.bundle import Bundle
from ecrs.rpc import log
from ecrs.serving.item_embedder import ItemEmbedder, open_item_embedder
from ecrs.settings import BundleSettings, ItemTowerSettings, JournalSettings, VectorSettings
from ecrs.storage.item_journals import open_item_journal
from ecrs.storage.redis_profiles import open_redis

app = typer.Typer(help="Load a bundle into the stores. Safe to run repeatedly.", no_args_is_help=True)


@app.command()
def redis(wait_s: float = typer.Option(120.0, help="how long to wait for the store")) -> None:
    """Load users, histories, aggregates, products and the item changes into Redis."""
    from ecrs_seed.bundle_records import FILES
    from ecrs_seed.redis import seed_redis

    log.configure("seed-redis")
    bundle = Bundle.open(BundleSettings().bundle)

    async def seed() -> None:
        settings = JournalSettings()
        async with open_redis(settings) as store, open_item_journal(settings) as journal:
            rows = sum(bundle.count(name) for name in FILES)
            with _progress("redis", rows) as advance:
                report = await seed_redis(bundle, store, journal, wait_s=wait_s, advance=advance)
            typer.echo(report)

    asyncio.run(seed())


@app.command()
def milvus(
    wait_s: float = typer.Option(180.0, help="how long to wait for the store, and for the tower"),
) -> None:
    """Load product vectors and the item changes into Milvus and make them live."""
    from ecrs_seed.changed_vectors import ChangedVectors
    from ecrs_seed.milvus import connect, seed_milvus

    log.configure("seed-milvus")
    bundle = Bundle.open(BundleSettings().bundle)

    async def seed() -> None:
        client = await connect(VectorSettings(), wait_s=wait_s)
        async with AsyncExitStack() as stack:

            def open_tower() -> Awaitable[ItemEmbedder]:
                return stack.enter_async_context(open_item_embedder(ItemTowerSettings().item_tower, bundle))

            journal = await stack.enter_async_context(open_item_journal(JournalSettings()))
            changes = ChangedVectors(bundle, journal, open_tower, wait_s=wait_s)
            with _progress("milvus", bundle.count("product_vectors.txt")) as advance:
                report = await seed_milvus(bundle, client, changes, advance=advance)
        typer.echo(report)

    asyncio.run(seed())


@app.command()
def milvus_users(wait_s: float = typer.Option(180.0, help="how long to wait for Milvus")) -> None:
    """Create the users of Milvus that recall and the seed sign in as. Needs the password of root."""
    from ecrs_seed.milvus import connect
    from ecrs_seed.milvus_users import MilvusUsersSettings, create_users

    log.configure("milvus-users")
    settings = MilvusUsersSettings()
    created = create_users(settings, asyncio.run(connect(settings, wait_s=wait_s)))
    typer.echo(f"milvus users: {', '.join(created) or 'none'} created or changed")


@contextmanager
def _progress(name: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of `rows` rows; the context yields the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=rows)
        yield lambda rows: progress.advance(task, rows)

"""`ecrs item`: adds, removes and marks products while the platform runs."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import grpc
import typer

from ecrs.contract.cm_pb2 import (
    ChangeResponse,
    PutItemsRequest,
    RemoveItemsRequest,
    SetStockRequest,
)
from ecrs.contract.cm_pb2_grpc import CMServiceStub
from ecrs.domain.entities import Item, sku_fault
from ecrs.domain.files import parse_item
from ecrs.rpc.authorization import write_metadata
from ecrs.settings import RunSettings, TargetSettings, WriteSettings, write_token_path
from ecrs.wire.messages import from_item
from ecrs.wire.validation import MAX_BATCH

TIMEOUT_S = 30.0
"""Longest time for one batch."""

app = typer.Typer(help="Add, remove and mark products while the platform runs.", no_args_is_help=True)
_MINUS_ONE = {"ignore_unknown_options": True}  # "-1" stands for an unknown value and is not an option

Method = Callable[[CMServiceStub], Callable[..., ChangeResponse]]
"""Selects the method of cm that makes a change."""


@app.command(context_settings=_MINUS_ONE)
def add(
    values: Annotated[list[str] | None, typer.Argument(metavar="SKU BRAND SHOP CATEGORY")] = None,
    file: Annotated[
        Path | None, typer.Option(help="lines sku:brand:shop:category, as in products.dat")
    ] = None,
) -> None:
    """Add a product, or all products of a file; known ones are replaced.

    Added products are in stock and can be recommended immediately.
    """
    if (file is None) == (values is None) or (values and len(values) != 4):
        _fail("give either SKU BRAND SHOP CATEGORY or --file")
    items = _read(file) if file else [_parse(":".join(values or ()), "the product")]
    requests = (PutItemsRequest(item_infos=map(from_item, batch)) for batch in _batches(items))
    _change(len(items), requests, lambda stub: stub.put_items, "added")


@app.command(context_settings=_MINUS_ONE)
def remove(skus: Annotated[list[str], typer.Argument(metavar="SKU…")]) -> None:
    """Remove products, so that they are no longer recommended."""
    _check(skus)
    requests = (RemoveItemsRequest(item_ids=batch) for batch in _batches(skus))
    _change(len(skus), requests, lambda stub: stub.remove_items, "removed")


@app.command(context_settings=_MINUS_ONE)
def stock(
    skus: Annotated[list[str], typer.Argument(metavar="SKU…")],
    in_stock: Annotated[
        bool, typer.Option("--in/--out", help="in stock, or out of stock and not recommended")
    ],
) -> None:
    """Mark products as in stock or out of stock."""
    _check(skus)
    requests = (SetStockRequest(item_ids=batch, in_stock=in_stock) for batch in _batches(skus))
    done = "marked in stock" if in_stock else "marked out of stock"
    _change(len(skus), requests, lambda stub: stub.set_stock, done)


def _change(total: int, requests: Iterator[Any], method: Method, done: str) -> None:
    """Send the requests one after the other and print the result in one line.

    `total`: number of products in all requests. `done`: past participle for the line, such as "added". Exits
    with 1 unless all products were changed.
    """
    target, metadata = TargetSettings().cm_target, write_metadata(_write_token())
    count, missing = 0, list[str]()
    with grpc.insecure_channel(target) as channel:
        stub = CMServiceStub(channel)
        for request in requests:
            progress = f"; {count:,} of {total:,} were already {done}" if count else ""
            try:
                reply = method(stub)(request, timeout=TIMEOUT_S, metadata=metadata)
            except grpc.RpcError as error:
                _fail(f"no answer from cm at {target}: {error.code().name}{progress}")
            if reply.error.code != 200:
                _fail(f"{reply.error.text} (code {reply.error.code}){progress}")
            count += reply.done
            missing += reply.missing_ids
    result = f"{count:,} {'product' if count == 1 else 'products'} {done}"
    if missing:
        _fail(f"{result}, {len(missing):,} unknown: {', '.join(missing[:10])}{'…' * (len(missing) > 10)}")
    typer.echo(result)


def _write_token() -> str | None:
    """Return the token of the settings, or of the embedded platform on this machine. Exits if unreadable."""
    if token := WriteSettings().write_token:
        return token
    path = write_token_path(RunSettings().run_dir)
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None  # cm says how to set one
    except OSError as error:
        _fail(f"{path}: {error.strerror}: products can be changed by the user who started the platform")


def _read(file: Path) -> list[Item]:
    """Return the products of a file. Exits at the first invalid line, with its number and the reason."""
    items: dict[str, Item] = {}
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1):
            if not line.strip():
                continue
            item = _parse(line, where := f"{file}:{number}")
            if item.sku in items:
                _fail(f"{where}: sku {item.sku!r} appears twice")
            items[item.sku] = item
    except OSError as error:
        _fail(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        _fail(f"{file}: not UTF-8")
    if not items:
        _fail(f"{file}: no products")
    return list(items.values())


def _parse(line: str, where: str) -> Item:
    """Return the product of a line. Exits with `where` and the reason if it is invalid."""
    try:
        item = parse_item(line)
    except ValueError as error:
        _fail(f"{where}: {error}")
    _check([item.sku], f"{where}: ")
    return item


def _check(skus: Sequence[str], where: str = "") -> None:
    for sku in skus:
        if fault := sku_fault(sku):
            _fail(f"{where}sku {sku!r}: {fault}")


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + MAX_BATCH] for start in range(0, len(values), MAX_BATCH))


def _fail(text: str) -> NoReturn:
    typer.echo(f"ecrs: {text}", err=True)
    raise typer.Exit(1)

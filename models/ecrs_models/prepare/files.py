"""Imports a shop's own users.dat, products.dat and actions.csv.

Memory is bounded by the tables of users and products and one block of actions.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ecrs.domain.actions import ActionType
from ecrs.domain.entities import ITEM_FIELDS, NEW_USER_IDS, UNKNOWN
from ecrs.domain.files import parse_item, parse_user
from ecrs_models.data.dataset import (
    ACTION_SCHEMA,
    ACTIONS,
    PRODUCTS,
    USER_COLUMNS,
    USERS,
    replacing,
    write_about,
    write_table,
)
from ecrs_models.data.split import Split
from ecrs_models.errors import DataError
from ecrs_models.prepare.actions import KnownActions, Parts, describe_dropped
from ecrs_models.prepare.lines import (
    QUOTES,
    RESERVED,
    BadLines,
    cells_of,
    check_share,
    good_rows,
    header_of,
    named_cells,
    note_bad,
    read_blocks,
    well_formed,
)

ACTIONS_CSV = "actions.csv"
_TYPES = {kind.name.lower(): int(kind) for kind in ActionType if kind} | {
    str(int(kind)): int(kind) for kind in ActionType if kind
}
_TS = r"^[0-9]{1,10}$"
_FORBIDDEN_IN_SKU = ",;"


@dataclass(frozen=True)
class PreparedFiles:
    """The result of an import: counts, bad lines per file, and actions dropped by `KnownActions`."""

    counts: dict[str, int]
    reports: list[BadLines]
    dropped: dict[str, int]

    def summary(self) -> str:
        """Return the result as a few lines of text."""
        lines = [str(report) for report in self.reports if report.bad]
        if self.dropped["actions"]:
            lines.append(describe_dropped(self.dropped))
        lines.append(", ".join(f"{count:,} {name}" for name, count in self.counts.items()))
        return "\n".join(lines)


def prepare(source: Path, out: Path, *, strict: bool = False) -> PreparedFiles:
    """Read the shop's files in `source` and write the data set to `out`.

    Bad lines are left out, counted and explained. Actions with an unknown user or product are dropped and
    counted. Raises DataError, and writes nothing, if a file cannot be read, if more than MAX_BAD_SHARE of
    its lines are bad, if no usable line or action is left, or, with `strict`, at the first bad line.
    """
    with replacing(out) as draft:
        users, bad_users = read_users(source / USERS, strict)
        items, bad_items = read_items(source / PRODUCTS, strict)
        write_table(users, draft / USERS)
        write_table(items, draft / PRODUCTS)

        bad_actions = BadLines(source / ACTIONS_CSV)
        known = KnownActions(users, items)
        parts = Parts(draft / "parts")
        for block in read_actions(source / ACTIONS_CSV, bad_actions, strict):
            parts.write(known.keep(block))
        check_share(bad_actions)
        if not bad_actions.lines:
            raise DataError(f"{source / ACTIONS_CSV}: no lines")
        actions, first, last = parts.join(draft / ACTIONS)
        if not actions:
            raise DataError(f"{source / ACTIONS_CSV}: no action has a known user and a known product")
        counts = {"users": users.height, "products": items.height, "actions": actions}
        name = source.resolve().name
        write_about(
            draft, name=name, source=f"files of {name}", split=Split.suggest(first, last), counts=counts,
            dropped=known.dropped,
        )  # fmt: skip
    return PreparedFiles(counts, [bad_users, bad_items, bad_actions], known.dropped)


def read_users(path: Path, strict: bool = False) -> tuple[pl.DataFrame, BadLines]:
    """Read a users.dat. Returns its table, every column a string, and its bad lines."""

    def explain(line: str) -> str:
        user_id = parse_user(line).id
        if user_id in NEW_USER_IDS:
            raise ValueError(RESERVED.format(user_id))
        return user_id

    valid = ~pl.col("user_id").is_in(list(NEW_USER_IDS))
    return _read_table(path, USER_COLUMNS, valid, explain, strict)


def read_items(path: Path, strict: bool = False) -> tuple[pl.DataFrame, BadLines]:
    """Read a products.dat. Returns its table, every column a string, and its bad lines."""

    def explain(line: str) -> str:
        sku = parse_item(line).sku
        if any(character in sku for character in _FORBIDDEN_IN_SKU):
            raise ValueError(f"a sku cannot hold any of {_FORBIDDEN_IN_SKU!r}")
        return sku

    valid = ~pl.col("sku").str.contains(f"[{_FORBIDDEN_IN_SKU}]")
    return _read_table(path, ITEM_FIELDS, valid, explain, strict)


def read_actions(path: Path, report: BadLines, strict: bool = False) -> Iterator[pl.DataFrame]:
    """Yield the valid actions of an actions.csv in blocks with ACTION_SCHEMA.

    Bad lines are added to `report`.
    """
    names: tuple[str, ...] | None = None
    for lines in read_blocks(path):
        if names is None:
            names, lines = _header(lines)
        yield check_actions(lines, names, report, strict)


def check_actions(
    lines: pl.DataFrame, names: tuple[str, ...], report: BadLines, strict: bool
) -> pl.DataFrame:
    """Return the valid actions of a block of lines with columns `names`, adding bad lines to `report`."""
    cells = cells_of(lines, ",", names).with_columns(pl.col(names).str.strip_chars(QUOTES))
    kind = pl.col("type").str.to_lowercase().replace_strict(_TYPES, default=None, return_dtype=pl.Int8)
    valid = (
        well_formed(",", names)
        & (pl.col("user_id") != "")
        & (pl.col("sku_id") != "")
        & pl.col("ts").str.contains(_TS)
        & kind.is_not_null()
    )
    marked = cells.with_columns(valid.alias("valid"))
    note_bad(report, marked, lambda line: _explain_action(line, names), strict)
    return marked.filter("valid").select("user_id", "sku_id", pl.col("ts").cast(pl.Int64), kind.alias("type"))


def _read_table(
    path: Path, names: tuple[str, ...], valid: pl.Expr, explain: Callable[[str], str], strict: bool
) -> tuple[pl.DataFrame, BadLines]:
    key = names[0]
    valid = (well_formed(":", names) & (pl.col(key) != "") & valid).alias("valid")
    blocks = (cells_of(lines, ":", names).with_columns(valid) for lines in read_blocks(path))
    good, report = good_rows(path, blocks, key, explain, strict)
    return good.select(key, pl.col(names[1:]).replace("", UNKNOWN)), report


def _header(lines: pl.DataFrame) -> tuple[tuple[str, ...], pl.DataFrame]:
    """Return the names of the columns, and the lines without the header, if the first line is a header."""
    first = header_of(lines)
    if set(ACTION_SCHEMA) <= set(first) and len(set(first)) == len(first):
        return first, lines[1:]
    return tuple(ACTION_SCHEMA), lines


def _explain_action(line: str, names: tuple[str, ...]) -> None:
    action = named_cells(line, names)
    for name in ("user_id", "sku_id"):
        if not action[name]:
            raise ValueError(f"{name} is empty")
    if not re.fullmatch(_TS, action["ts"]):
        raise ValueError(f"ts {action['ts']!r} is not a Unix time in seconds")
    if action["type"].lower() not in _TYPES:
        raise ValueError(f"action type {action['type']!r} is none of view, order, follow, comment, cart, 1-5")

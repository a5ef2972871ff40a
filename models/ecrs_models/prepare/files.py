"""A shop's own users.dat, products.dat and actions.csv.

Whole blocks of lines are parsed at once by polars; only the first bad lines are looked at one by
one, to say what is wrong with them. Memory is bounded by a block and by the two tables.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ecrs.actions import ActionType
from ecrs.domain import ITEM_FIELDS, NEW_USER_IDS, UNKNOWN, parse_item, parse_user
from ecrs_models.dataset import (
    ACTION_SCHEMA,
    ACTIONS,
    PRODUCTS,
    USER_COLUMNS,
    USERS,
    Split,
    replacing,
    write_about,
    write_table,
)
from ecrs_models.errors import DataError

ACTIONS_CSV = "actions.csv"
MAX_BAD_SHARE = 0.01
SHOWN = 10
BLOCK_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"
_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd]"  # U+FFFD: what was no UTF-8
_TYPES = {kind.name.lower(): int(kind) for kind in ActionType if kind} | {
    str(int(kind)): int(kind) for kind in ActionType if kind
}
_TS = r"^[0-9]{1,10}$"
_FORBIDDEN_IN_SKU = ",;"
_QUOTES = '" '


@dataclass
class BadLines:
    """What was wrong in one file: how many of its lines, and the first SHOWN of them explained."""

    path: Path
    lines: int = 0
    bad: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def __str__(self) -> str:
        head = f"{self.path.name}: {self.bad:,} of {self.lines:,} lines are bad"
        shown = (f"  {self.path.name}:{number}: {reason}" for number, reason in self.first)
        return "\n".join((head + (", the first:" if self.bad > len(self.first) else ":"), *shown))


@dataclass(frozen=True)
class Prepared:
    """What came of it: counts, bad lines per file, and actions dropped for want of their user or product."""

    counts: dict[str, int]
    reports: list[BadLines]
    unknown_users: int
    unknown_products: int
    dropped: int

    def summary(self) -> str:
        """The report in a few lines of text."""
        lines = [str(report) for report in self.reports if report.bad]
        if self.dropped:
            lines.append(
                f"{self.dropped:,} actions left out: {self.unknown_users:,} of users and "
                f"{self.unknown_products:,} of products that the tables do not have"
            )
        lines.append(", ".join(f"{count:,} {name}" for name, count in self.counts.items()))
        return "\n".join(lines)


def prepare(source: Path, out: Path, *, strict: bool = False) -> Prepared:
    """Read the shop's files in `source`, write the data set to `out`.

    Bad lines are left out, counted and explained; actions of users or products that the tables
    do not have are left out and counted. DataError, and nothing written, if a file cannot be
    read, if more than MAX_BAD_SHARE of its lines are bad, with `strict` at the first bad line,
    or if nothing is left.
    """
    with replacing(out) as draft:
        users, bad_users = read_users(source / USERS, strict)
        items, bad_items = read_items(source / PRODUCTS, strict)
        write_table(users, draft / USERS)
        write_table(items, draft / PRODUCTS)

        parts = draft / "parts"
        parts.mkdir()
        bad_actions = BadLines(source / ACTIONS_CSV)
        known_users, known_items = users.select("user_id"), items.select(pl.col("sku").alias("sku_id"))
        no_user = no_item = dropped = 0
        for number, block in enumerate(read_actions(source / ACTIONS_CSV, bad_actions, strict)):
            with_user = block.join(known_users, on="user_id", how="semi", maintain_order="left")
            with_item = block.join(known_items, on="sku_id", how="semi")
            kept = with_user.join(known_items, on="sku_id", how="semi", maintain_order="left")
            no_user += block.height - with_user.height
            no_item += block.height - with_item.height
            dropped += block.height - kept.height
            kept.write_parquet(parts / f"{number:06}.parquet")
        _check_share(bad_actions)
        counts, split = _join_parts(parts, draft / ACTIONS, source)
        counts = {"users": users.height, "products": items.height, **counts}
        name = source.resolve().name
        write_about(
            draft, name=name, source=f"files of {name}", split=split, counts=counts,
            dropped={"unknown_users": no_user, "unknown_products": no_item, "actions": dropped},
        )  # fmt: skip
    return Prepared(counts, [bad_users, bad_items, bad_actions], no_user, no_item, dropped)


def read_users(path: Path, strict: bool = False) -> tuple[pl.DataFrame, BadLines]:
    """The table of a users.dat, every column a string, and what was wrong with it."""

    def explain(line: str) -> None:
        if parse_user(line).id in NEW_USER_IDS:
            raise ValueError(f"the id {parse_user(line).id!r} is reserved for users without an id")

    valid = ~pl.col("user_id").is_in(list(NEW_USER_IDS))
    return _read_table(path, USER_COLUMNS, valid, explain, strict)


def read_items(path: Path, strict: bool = False) -> tuple[pl.DataFrame, BadLines]:
    """The table of a products.dat, every column a string, and what was wrong with it."""

    def explain(line: str) -> None:
        if any(character in parse_item(line).sku for character in _FORBIDDEN_IN_SKU):
            raise ValueError(f"a sku cannot hold any of {_FORBIDDEN_IN_SKU!r}")

    valid = ~pl.col("sku").str.contains(f"[{_FORBIDDEN_IN_SKU}]")
    return _read_table(path, ITEM_FIELDS, valid, explain, strict)


def read_actions(path: Path, report: BadLines, strict: bool = False) -> Iterator[pl.DataFrame]:
    """The good actions of an actions.csv, block by block, with ACTION_SCHEMA; `report` is filled."""
    names: tuple[str, ...] | None = None
    for lines in read_blocks(path):
        if names is None:
            names, lines = _header(lines)
        yield check_actions(lines, names, report, strict)


def check_actions(
    lines: pl.DataFrame, names: tuple[str, ...], report: BadLines, strict: bool
) -> pl.DataFrame:
    """The good ones of a block of lines with the columns `names`; the others go into `report`."""
    cells = _split(lines, ",", names).with_columns(pl.col(names).str.strip_chars(_QUOTES))
    kind = pl.col("type").str.to_lowercase().replace_strict(_TYPES, default=None, return_dtype=pl.Int8)
    valid = (
        _well_formed(",", names)
        & (pl.col("user_id") != "")
        & (pl.col("sku_id") != "")
        & pl.col("ts").str.contains(_TS)
        & kind.is_not_null()
    )
    marked = cells.with_columns(valid.alias("valid"))
    _note(report, marked, lambda line: _explain_action(line, names), strict)
    return marked.filter("valid").select("user_id", "sku_id", pl.col("ts").cast(pl.Int64), kind.alias("type"))


def read_blocks(path: Path) -> Iterator[pl.DataFrame]:
    """The lines that are not blank, in blocks: `number`, from 1, and `line`, without its end.

    Bytes that are no UTF-8 become U+FFFD. DataError if the file cannot be read.
    """
    number, rest = 1, b""
    try:
        with open(path, "rb") as file:
            file.seek(len(_BOM) if file.read(len(_BOM)) == _BOM else 0)
            while block := file.read(BLOCK_BYTES):
                block = rest + block
                end = block.rfind(b"\n") + 1
                block, rest = block[:end], block[end:]
                if block:
                    yield _lines(block, number)
                    number += block.count(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if rest:
        yield _lines(rest, number)


def _lines(block: bytes, number: int) -> pl.DataFrame:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        block = block.decode("utf-8", errors="replace").encode()
    lines = pl.scan_lines(block, row_index_name="number", row_index_offset=number)
    return lines.filter(pl.col("line").str.strip_chars() != "").collect()


def _split(lines: pl.DataFrame, separator: str, names: tuple[str, ...]) -> pl.DataFrame:
    cells = pl.col("line").str.split_exact(separator, len(names) - 1).struct.rename_fields(list(names))
    return lines.with_columns(cells.alias("cells")).unnest("cells").with_columns(
        pl.col(names).str.strip_chars().fill_null("")
    )  # fmt: skip


def _well_formed(separator: str, names: tuple[str, ...]) -> pl.Expr:
    separators = pl.col("line").str.count_matches(separator, literal=True)
    return (separators == len(names) - 1) & ~pl.col("line").str.contains(_CONTROL)


def _read_table(
    path: Path, names: tuple[str, ...], valid: pl.Expr, explain: Callable[[str], None], strict: bool
) -> tuple[pl.DataFrame, BadLines]:
    key = names[0]
    valid = (_well_formed(":", names) & (pl.col(key) != "") & valid).alias("valid")
    blocks = [_split(lines, ":", names).with_columns(valid) for lines in read_blocks(path)]
    if not blocks:
        raise DataError(f"{path}: no lines")
    table = pl.concat(blocks)
    fresh = pl.col(key).is_first_distinct().over("valid")
    table = table.with_columns(pl.col("valid") & fresh)
    report = BadLines(path)

    def explain_or_repeat(line: str) -> None:
        explain(line)
        raise ValueError(f"{key} {line.partition(':')[0].strip()!r} is there already")

    _note(report, table, explain_or_repeat, strict)
    _check_share(report)
    good = table.filter("valid").select(key, pl.col(names[1:]).replace("", UNKNOWN))
    if not good.height:
        raise DataError(f"{path}: no usable lines")
    return good, report


def _note(report: BadLines, marked: pl.DataFrame, explain: Callable[[str], None], strict: bool) -> None:
    bad = marked.filter(~pl.col("valid")).select("number", "line")
    report.lines += marked.height
    report.bad += bad.height
    for number, line in bad.head(SHOWN - len(report.first)).rows():
        report.first.append((number, _reason(line, explain)))
        if strict:
            raise DataError(f"{report.path}:{number}: {report.first[-1][1]}")


def _reason(line: str, explain: Callable[[str], None]) -> str:
    if "\ufffd" in line:
        return "not UTF-8"
    if re.search(_CONTROL, line):
        return "a control character"
    try:
        explain(line)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"nothing is wrong with {line!r}")


def _check_share(report: BadLines) -> None:
    if report.bad > MAX_BAD_SHARE * report.lines:
        raise DataError(f"{report}\nMore than {MAX_BAD_SHARE:.0%} of a file: nothing was written.")


def _header(lines: pl.DataFrame) -> tuple[tuple[str, ...], pl.DataFrame]:
    """The columns' names, and the lines without the header, if the first one is one."""
    first = tuple(cell.strip(_QUOTES).lower() for cell in lines["line"][0].split(",")) if lines.height else ()
    if set(ACTION_SCHEMA) <= set(first) and len(set(first)) == len(first):
        return first, lines[1:]
    return tuple(ACTION_SCHEMA), lines


def _explain_action(line: str, names: tuple[str, ...]) -> None:
    cells = [cell.strip().strip(_QUOTES) for cell in line.split(",")]
    if len(cells) != len(names):
        raise ValueError(f"expected {len(names)} fields {','.join(names)}, found {len(cells)}")
    action = dict(zip(names, cells, strict=True))
    for name in ("user_id", "sku_id"):
        if not action[name]:
            raise ValueError(f"{name} is empty")
    if not re.fullmatch(_TS, action["ts"]):
        raise ValueError(f"ts {action['ts']!r} is no Unix time in seconds")
    if action["type"].lower() not in _TYPES:
        raise ValueError(f"action type {action['type']!r} is none of view, order, follow, comment, cart, 1-5")


def _join_parts(parts: Path, out: Path, source: Path) -> tuple[dict[str, int], Split]:
    """The parts as one file, in their order; its count and the split it suggests."""
    files = sorted(parts.iterdir())
    if not files:
        raise DataError(f"{source / ACTIONS_CSV}: no lines")
    actions = pl.scan_parquet(files)
    count, first, last = (
        actions.select(pl.len(), pl.col("ts").min().alias("first"), pl.col("ts").max().alias("last"))
        .collect().row(0)
    )  # fmt: skip
    if not count:
        raise DataError(f"{source / ACTIONS_CSV}: no action of a user and a product in the tables")
    actions.sink_parquet(out)
    for file in files:
        file.unlink()
    parts.rmdir()
    return {"actions": count}, Split.suggest(first, last)

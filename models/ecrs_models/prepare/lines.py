"""Text files of somebody's data, block by block: what is a line, what is a bad one.

Whole blocks of lines are parsed at once by polars; only the first bad lines are looked at one by
one, to say what is wrong with them. Memory is bounded by a block.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ecrs_models.errors import DataError

MAX_BAD_SHARE = 0.01
SHOWN = 10
BLOCK_BYTES = 16 << 20
QUOTES = '" '
RESERVED = "the id {!r} is reserved for users without an id"
_BOM = b"\xef\xbb\xbf"
_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd]"  # U+FFFD: what was no UTF-8


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


def cells_of(lines: pl.DataFrame, separator: str, names: tuple[str, ...]) -> pl.DataFrame:
    """The lines with a column a cell, without spaces around it; what a short line missing is empty."""
    cells = pl.col("line").str.split_exact(separator, len(names) - 1).struct.rename_fields(list(names))
    return lines.with_columns(cells.alias("cells")).unnest("cells").with_columns(
        pl.col(names).str.strip_chars().fill_null("")
    )  # fmt: skip


def well_formed(separator: str, names: tuple[str, ...]) -> pl.Expr:
    """Whether `line` has as many cells as `names` and no control character."""
    separators = pl.col("line").str.count_matches(separator, literal=True)
    return (separators == len(names) - 1) & ~pl.col("line").str.contains(_CONTROL)


def note_bad(report: BadLines, marked: pl.DataFrame, explain: Callable[[str], object], strict: bool) -> None:
    """Count the lines of a block that are not `valid`, and explain the first of them.

    `explain` raises ValueError with the reason. DataError, with `strict`, at the first bad line.
    """
    bad = marked.filter(~pl.col("valid")).select("number", "line")
    report.lines += marked.height
    report.bad += bad.height
    for number, line in bad.head(SHOWN - len(report.first)).rows():
        report.first.append((number, _reason(line, explain)))
        if strict:
            raise DataError(f"{report.path}:{number}: {report.first[-1][1]}")


def _reason(line: str, explain: Callable[[str], object]) -> str:
    if "\ufffd" in line:
        return "not UTF-8"
    if re.search(_CONTROL, line):
        return "a control character"
    try:
        explain(line)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"nothing is wrong with {line!r}")


def check_share(report: BadLines) -> None:
    """DataError if more than MAX_BAD_SHARE of a file is bad."""
    if report.bad > MAX_BAD_SHARE * report.lines:
        raise DataError(f"{report}\nMore than {MAX_BAD_SHARE:.0%} of a file: nothing was written.")


def header_of(lines: pl.DataFrame) -> tuple[str, ...]:
    """The cells of the first line, in lower case, without quotes: the columns' names if it is a header."""
    return tuple(cell.strip(QUOTES).lower() for cell in lines["line"][0].split(",")) if lines.height else ()


def named_cells(line: str, names: tuple[str, ...]) -> dict[str, str]:
    """One line's cells by column, without quotes; ValueError if there are more or fewer."""
    cells = [cell.strip().strip(QUOTES) for cell in line.split(",")]
    if len(cells) != len(names):
        raise ValueError(f"expected {len(names)} fields {','.join(names)}, found {len(cells)}")
    return dict(zip(names, cells, strict=True))


def good_rows(
    path: Path, blocks: Iterable[pl.DataFrame], key: str, explain: Callable[[str], str], strict: bool
) -> tuple[pl.DataFrame, BadLines]:
    """A table's rows that are `valid`, the first one of each `key`, and what was wrong with the others.

    `blocks` have `number`, `line`, `valid` and the columns. `explain` gives a line's key or raises
    ValueError with the reason. DataError if there is no usable line, too many bad ones, or, with
    `strict`, one.
    """
    parts = list(blocks)
    if not parts:
        raise DataError(f"{path}: no lines")
    table = pl.concat(parts)
    table = table.with_columns(pl.col("valid") & pl.col(key).is_first_distinct().over("valid"))
    report = BadLines(path)

    def explain_or_repeat(line: str) -> None:
        raise ValueError(f"{key} {explain(line)!r} is there already")

    note_bad(report, table, explain_or_repeat, strict)
    check_share(report)
    good = table.filter("valid").drop("number", "line", "valid")
    if not good.height:
        raise DataError(f"{path}: no usable lines")
    return good, report

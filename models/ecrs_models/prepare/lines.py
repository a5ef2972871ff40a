"""Reads text files with untrusted content block by block, and reports bad lines.

polars parses whole blocks of lines; only the first bad lines are examined individually, to explain what is
wrong with them. Memory is bounded by one block.
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
_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd]"  # U+FFFD replaces bytes that are not UTF-8


@dataclass
class BadLines:
    """The bad lines of one file: their number, and explanations of the first SHOWN of them.

    `lines` is the number of all lines that are not blank; `first` holds line numbers, from 1, and reasons.
    """

    path: Path
    lines: int = 0
    bad: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def __str__(self) -> str:
        head = f"{self.path.name}: {self.bad:,} of {self.lines:,} lines are bad"
        shown = (f"  {self.path.name}:{number}: {reason}" for number, reason in self.first)
        return "\n".join((head + (", the first:" if self.bad > len(self.first) else ":"), *shown))


def read_blocks(path: Path) -> Iterator[pl.DataFrame]:
    """Yield the lines of a file in blocks with the columns `number`, from 1, and `line`, without the newline.

    Blank lines are left out. Bytes that are not UTF-8 become U+FFFD. Raises DataError if the file cannot be
    read.
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
    """Split each line into columns `names`, without surrounding spaces. Missing cells are empty."""
    cells = pl.col("line").str.split_exact(separator, len(names) - 1).struct.rename_fields(list(names))
    return lines.with_columns(cells.alias("cells")).unnest("cells").with_columns(
        pl.col(names).str.strip_chars().fill_null("")
    )  # fmt: skip


def well_formed(separator: str, names: tuple[str, ...]) -> pl.Expr:
    """Return an expression: True if `line` has as many cells as `names` and no control character."""
    separators = pl.col("line").str.count_matches(separator, literal=True)
    return (separators == len(names) - 1) & ~pl.col("line").str.contains(_CONTROL)


def note_bad(report: BadLines, marked: pl.DataFrame, explain: Callable[[str], object], strict: bool) -> None:
    """Add the lines of a block, and those that are not `valid`, to `report`, and explain the first of them.

    `explain` raises ValueError with the reason why a line is bad. With `strict`, raises DataError at the
    first bad line.
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
        return "contains a control character"
    try:
        explain(line)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"nothing is wrong with {line!r}")


def check_share(report: BadLines) -> None:
    """Raise DataError if more than MAX_BAD_SHARE of a file's lines are bad."""
    if report.bad > MAX_BAD_SHARE * report.lines:
        raise DataError(f"{report}\nMore than {MAX_BAD_SHARE:.0%} of the lines are bad: nothing was written.")


def header_of(lines: pl.DataFrame) -> tuple[str, ...]:
    """Return the cells of the first line in lower case, without quotes. A header's cells name the columns."""
    return tuple(cell.strip(QUOTES).lower() for cell in lines["line"][0].split(",")) if lines.height else ()


def named_cells(line: str, names: tuple[str, ...]) -> dict[str, str]:
    """Return one line's cells by column, without quotes. Raises ValueError if their number is wrong."""
    cells = [cell.strip().strip(QUOTES) for cell in line.split(",")]
    if len(cells) != len(names):
        raise ValueError(f"expected {len(names)} fields {','.join(names)}, found {len(cells)}")
    return dict(zip(names, cells, strict=True))


def good_rows(
    path: Path, blocks: Iterable[pl.DataFrame], key: str, explain: Callable[[str], str], strict: bool
) -> tuple[pl.DataFrame, BadLines]:
    """Return the `valid` rows of a table, only the first one for each `key`, and the bad lines.

    `blocks` have `number`, `line`, `valid` and the table's columns. `explain` returns a line's key, or raises
    ValueError with the reason why the line is bad. Raises DataError if there is no usable line, if more than
    MAX_BAD_SHARE of the lines are bad, or, with `strict`, at the first bad line.
    """
    parts = list(blocks)
    if not parts:
        raise DataError(f"{path}: no lines")
    table = pl.concat(parts)
    table = table.with_columns(pl.col("valid") & pl.col(key).is_first_distinct().over("valid"))
    report = BadLines(path)

    def explain_or_repeat(line: str) -> None:
        raise ValueError(f"{key} {explain(line)!r} is a duplicate")

    note_bad(report, table, explain_or_repeat, strict)
    check_share(report)
    good = table.filter("valid").drop("number", "line", "valid")
    if not good.height:
        raise DataError(f"{path}: no usable lines")
    return good, report

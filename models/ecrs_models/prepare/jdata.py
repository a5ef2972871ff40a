"""Imports JData 2019: the CSV files of the competition, as published.

Actions are read block by block, stored on disk in parts and sorted a few days at a time, so that memory is
bounded by the table of users, a block and BUCKET_ROWS actions. docs/reference/data.md lists the
irregularities of the files and how they are handled.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from ecrs.domain.clock import DAY_S
from ecrs.domain.entities import ITEM_FIELDS, NEW_USER_IDS, UNKNOWN
from ecrs_models.data.dataset import (
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
from ecrs_models.prepare.gaps import find_gaps
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

USERS_CSV, PRODUCTS_CSV = "jdata_user.csv", "jdata_product.csv"
ACTIONS_CSV, SHOPS_CSV = "jdata_action.csv", "jdata_shop.csv"

ZONE, ZONE_S = "UTC+8", 8 * 3600
"""The files' times have no zone. They are read as China Standard Time, which has no daylight saving time."""
BUCKET_ROWS = 4_000_000
"""Number of actions that are sorted together. A single day is never divided and may have more."""

PROFILE_COLUMNS = USER_COLUMNS[1:]
"""Columns of jdata_user.csv that are used, besides the id. They have the same names as on the platform."""
ITEM_COLUMNS = {"brand": "brand", "shop": "shop_id", "category": "cate"}
ACTION_COLUMNS = ("user_id", "sku_id", "action_time", "type")

_UNKNOWN = ("", "null", "nan", "na", r"\n", "-1", "-1.0")
_NUMBER = r"^([0-9]{1,18})(?:\.0*)?$"
_TYPE = r"^([1-5])(?:\.0*)?$"
_TIME = r"^((?:19[89][0-9]|2[01][0-9]{2})-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-5][0-9])(?:\.0*)?$"


@dataclass(frozen=True)
class PreparedJData:
    """The result of an import: counts, bad lines per file, dropped actions, and notes about the data."""

    counts: dict[str, int]
    reports: list[BadLines]
    dropped: dict[str, int]
    notes: list[str]

    def summary(self) -> str:
        """Return the result as a few lines of text."""
        lines = [str(report) for report in self.reports if report.bad]
        if self.dropped["actions"]:
            lines.append(describe_dropped(self.dropped))
        if self.dropped["duplicates"]:
            lines.append(f"{self.dropped['duplicates']:,} actions dropped: duplicates")
        lines += [f"note: {note}" for note in self.notes]
        lines.append(", ".join(f"{count:,} {name}" for name, count in self.counts.items()))
        return "\n".join(lines)


def prepare(
    source: Path, out: Path, *, strict: bool = False, window_days: int | None = None
) -> PreparedJData:
    """Read JData's files in `source` and write the data set to `out`, with actions sorted by time.

    Bad lines are handled as in `files.prepare`. Actions with an unknown user or product are dropped and
    counted, as are duplicates: actions with the same user, product, second and type as an earlier one.
    `window_days` is the length of the split's two periods; by default, Split.suggest chooses it. Raises
    DataError, and writes nothing, in the same cases as `files.prepare`.
    """
    with replacing(out) as draft:
        users, bad_users = read_users(source / USERS_CSV, strict)
        items, bad_items = read_items(source / PRODUCTS_CSV, strict)
        write_table(users, draft / USERS)
        write_table(items, draft / PRODUCTS)

        bad_actions = BadLines(source / ACTIONS_CSV)
        known, parts = KnownActions(users, items), Parts(draft / "parts")
        for block in read_actions(source / ACTIONS_CSV, bad_actions, strict):
            parts.write(known.keep(block))
        check_share(bad_actions)
        if not bad_actions.lines:
            raise DataError(f"{source / ACTIONS_CSV}: no lines")
        ordered = Parts(draft / "ordered")
        daily, duplicates = sort_by_time(parts, ordered)
        actions, first, last = ordered.join(draft / ACTIONS)
        if not actions:
            raise DataError(f"{source / ACTIONS_CSV}: no action has a known user and a known product")

        gaps = find_gaps(daily)
        notes = [*check_shops(source / SHOPS_CSV, items), *map(str, gaps)]
        counts = {"users": users.height, "products": items.height, "actions": actions}
        dropped = {**known.dropped, "duplicates": duplicates}
        write_about(
            draft, name=out.name, source="JData 2019, the competition's files",
            split=Split.suggest(first, last, window_days), counts=counts, dropped=dropped,
            zone=ZONE, missing=[asdict(gap) for gap in gaps], notes=notes,
        )  # fmt: skip
    return PreparedJData(counts, [bad_users, bad_items, bad_actions], dropped, notes)


def read_users(path: Path, strict: bool = False) -> tuple[pl.DataFrame, BadLines]:
    """Read a jdata_user.csv. Returns the table of users.dat, with values like "5.0", and the bad lines."""
    table, report = _read_table(path, "user_id", PROFILE_COLUMNS, strict, reserved=NEW_USER_IDS)
    values = [
        pl.when(pl.col(name) == UNKNOWN).then(pl.col(name)).otherwise(pl.col(name) + ".0").alias(name)
        for name in PROFILE_COLUMNS
    ]
    return table.select("user_id", *values), report


def read_items(path: Path, strict: bool = False) -> tuple[pl.DataFrame, BadLines]:
    """Read a jdata_product.csv. Returns the table of products.dat and the bad lines."""
    table, report = _read_table(path, "sku_id", tuple(ITEM_COLUMNS.values()), strict)
    columns = [pl.col(column).alias(name) for name, column in ITEM_COLUMNS.items()]
    return table.select(pl.col("sku_id").alias("sku"), *columns).select(ITEM_FIELDS), report


def read_actions(path: Path, report: BadLines, strict: bool = False) -> Iterator[pl.DataFrame]:
    """Yield the valid actions of a jdata_action.csv in blocks with ACTION_SCHEMA.

    Bad lines are added to `report`.
    """
    for names, cells in _read_cells(path, ACTION_COLUMNS):
        yield check_actions(cells, names, report, strict)


def check_actions(
    cells: pl.DataFrame, names: tuple[str, ...], report: BadLines, strict: bool
) -> pl.DataFrame:
    """Return the valid actions of a block of `cells`, adding bad lines to `report`."""
    time = pl.col("action_time").str.extract(_TIME).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)
    parsed = cells.with_columns(
        _number("user_id"),
        _number("sku_id"),
        (time.dt.epoch("s") - ZONE_S).alias("ts"),
        pl.col("type").str.extract(_TYPE).cast(pl.Int8),
    )
    complete = pl.all_horizontal(pl.col("user_id", "sku_id", "ts", "type").is_not_null())
    marked = parsed.with_columns((well_formed(",", names) & complete).alias("valid"))
    note_bad(report, marked, lambda line: _explain_action(line, names), strict)
    return marked.filter("valid").select("user_id", "sku_id", "ts", "type")


def sort_by_time(parts: Parts, into: Parts) -> tuple[pl.DataFrame, int]:
    """Write the actions of `parts`, sorted by time and without duplicates, to `into`, and delete `parts`.

    Actions of the same second keep their order. Returns the number of actions per day and type, with columns
    `day`, days since 1970-01-01 in ZONE, `type` and `actions`; and the number of duplicates dropped.
    """
    day = ((pl.col("ts") + ZONE_S) // DAY_S).alias("day")
    daily, duplicates = [], 0
    sizes = parts.scan().group_by(day).len().sort("day").collect()
    for first, last in _buckets(sizes):
        bucket = parts.scan().filter(day.is_between(first, last)).collect()
        distinct = bucket.unique(maintain_order=True).sort("ts", maintain_order=True)
        duplicates += bucket.height - distinct.height
        daily.append(distinct.group_by(day, "type").agg(pl.len().alias("actions")))
        into.write(distinct)
    parts.discard()
    return pl.concat(daily) if daily else pl.DataFrame(), duplicates


def check_shops(path: Path, items: pl.DataFrame) -> list[str]:
    """Check the products' shops against jdata_shop.csv. Returns notes about missing shops or a missing file.

    The models do not need this file.
    """
    if not path.exists():
        return [f"{path.name} is missing: the products' shops were not checked"]
    shops = [cells.select(_number("shop_id")) for _, cells in _read_cells(path, ("shop_id",))]
    if not shops:
        raise DataError(f"{path}: no lines")
    unlisted = items.filter(pl.col("shop") != UNKNOWN).join(
        pl.concat(shops), left_on="shop", right_on="shop_id", how="anti"
    )
    return [f"{unlisted.height:,} products have a shop that is not in {path.name}"] if unlisted.height else []


def _read_cells(path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], pl.DataFrame]]:
    """Yield the names of all columns, and blocks with `number`, `line` and the `wanted` columns, unquoted."""
    names: tuple[str, ...] = ()
    for lines in read_blocks(path):
        if not names:
            names, lines = header_of(lines), lines[1:]
            missing = [name for name in wanted if name not in names]
            if missing or len(set(names)) < len(names):
                raise DataError(
                    f"{path}: the first line must name the columns; missing: {', '.join(missing)}"
                )
        cells = cells_of(lines, ",", names).select("number", "line", *wanted)
        yield names, cells.with_columns(pl.col(wanted).str.strip_chars(QUOTES))


def _read_table(
    path: Path, key: str, columns: tuple[str, ...], strict: bool, reserved: frozenset[str] = frozenset()
) -> tuple[pl.DataFrame, BadLines]:
    """Read `key` and `columns` as whole numbers in string form; unknown values of `columns` become "-1".

    Keys in `reserved` are bad.
    """

    def explain(line: str, names: tuple[str, ...]) -> str:
        cells = named_cells(line, names)
        number = _whole_number(key, cells[key])
        if number in reserved:
            raise ValueError(RESERVED.format(number))
        for name in columns:
            if cells[name].lower() not in _UNKNOWN:
                _whole_number(name, cells[name])
        return number

    blocks: list[pl.DataFrame] = []
    names: tuple[str, ...] = ()
    known = [
        pl.when(pl.col(name).str.to_lowercase().is_in(_UNKNOWN)).then(pl.lit(UNKNOWN))
        .otherwise(_number(name)).alias(name)
        for name in columns
    ]  # fmt: skip
    for names, cells in _read_cells(path, (key, *columns)):
        numbers = cells.with_columns(_number(key), *known)
        complete = pl.all_horizontal(pl.col(key, *columns).is_not_null())
        valid = well_formed(",", names) & complete & ~pl.col(key).is_in(list(reserved))
        blocks.append(numbers.with_columns(valid.fill_null(False).alias("valid")))
    return good_rows(path, blocks, key, lambda line: explain(line, names), strict)


def _buckets(sizes: pl.DataFrame) -> Iterator[tuple[int, int]]:
    """Yield ranges of days, both ends included, with at most BUCKET_ROWS actions if they have several days.

    `sizes` has the columns `day` and `len`, the number of actions.
    """
    first, rows = None, 0
    for day, count in sizes.rows():
        if first is not None and rows + count > BUCKET_ROWS:
            yield first, day - 1
            first, rows = None, 0
        first, rows = day if first is None else first, rows + count
    if first is not None:
        yield first, sizes["day"][-1]


def _number(name: str) -> pl.Expr:
    """Normalise a column of whole numbers: "7.0" and "007" become "7", anything else null."""
    return pl.col(name).str.extract(_NUMBER).cast(pl.Int64).cast(pl.String)


def _whole_number(name: str, value: str) -> str:
    if not value:
        raise ValueError(f"{name} is empty")
    match = re.fullmatch(_NUMBER, value)
    if not match:
        raise ValueError(f"{name} {value!r} is not a whole number")
    return str(int(match[1]))


def _explain_action(line: str, names: tuple[str, ...]) -> None:
    action = named_cells(line, names)
    for name in ("user_id", "sku_id"):
        _whole_number(name, action[name])
    time = re.fullmatch(_TIME, action["action_time"])
    try:
        datetime.fromisoformat(time[1] if time else "")
    except ValueError:
        raise ValueError(
            f"action_time {action['action_time']!r} is not a time like 2018-02-01 23:45:28"
        ) from None
    if not re.fullmatch(_TYPE, action["type"]):
        raise ValueError(f"type {action['type']!r} is not one of 1 to 5")

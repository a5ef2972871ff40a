"""Preparing the files of the JData competition."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.domain.clock import DAY_S
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.prepare import jdata, lines
from ecrs_models.prepare.gaps import find_gaps

USERS = """user_id,age,sex,user_reg_tm,user_lv_cd,city_level,province,city,county
1,5.0,1.0,2015-01-02,5,5.0,20.0,176.0,1933.0
8888,6,0,2012-05-06,1,,-1,NULL,-1.0
30,-1,-1,2012-05-06,1,1,2,3,4
"""
PRODUCTS = """sku_id,brand,shop_id,cate,market_time
1,3456,6980,70,2017-03-04
99654,10,7,,2017-03-04
"""
SHOPS = """vender_id,shop_id,fans_num,vip_num,shop_reg_tm,cate,shop_score
3,6980,1,2,2014-01-01,70,9.5
4,7,1,2,2014-01-01,,-1
"""
HEADER = "user_id,sku_id,action_time,module_id,type\n"
ACTIONS = (
    HEADER
    + """8888,99654,2018-02-02 00:00:00,6190659,1
1,1,2018-02-01 23:45:28,6190659,2
30,1,2018-02-04 08:00:00,,5
1,99654,2018-02-01 23:45:28,1,1
"""
)
FIRST = int(datetime(2018, 2, 1, 15, 45, 28, tzinfo=UTC).timestamp())
"""Unix seconds of 2018-02-01 23:45:28 in China."""

Files = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A function that writes the competition's files, default or as passed, and returns their directory."""

    def write(
        users: str = USERS, products: str = PRODUCTS, actions: str = ACTIONS, shops: str | None = SHOPS
    ) -> Path:
        source = tmp_path / "published"
        source.mkdir(exist_ok=True)
        for name, text in (("user", users), ("product", products), ("action", actions), ("shop", shops)):
            path = source / f"jdata_{name}.csv"
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_bytes(text.encode())
        return source

    return write


def good_actions_then(bad: str = "", good: int = 1000) -> str:
    """Return a header, `good` distinct actions a second apart, and then `bad`."""
    start = datetime(2018, 2, 1)
    times = (start + timedelta(seconds=second) for second in range(good))
    return HEADER + "".join(f"1,1,{time:%Y-%m-%d %H:%M:%S},9,1\n" for time in times) + bad


def actions_of(out: Path) -> list[tuple[str, str, int, int]]:
    return pl.read_parquet(out / "actions.parquet").rows()


def test_published_files_become_a_data_set_sorted_by_time(files: Files, tmp_path: Path) -> None:
    prepared = jdata.prepare(files(), tmp_path / "out", strict=True)
    assert prepared.counts == {"users": 3, "products": 2, "actions": 4}
    assert actions_of(tmp_path / "out") == [
        ("1", "1", FIRST, 2),
        ("1", "99654", FIRST, 1),
        ("8888", "99654", FIRST + 872, 1),
        ("30", "1", FIRST + 872 + 2 * DAY_S + 8 * 3600, 5),
    ]
    assert (tmp_path / "out/users.dat").read_text().splitlines() == [
        *("1:5.0:1.0:5.0:20.0:176.0:1933.0", "8888:6.0:0.0:-1:-1:-1:-1", "30:-1:-1:1.0:2.0:3.0:4.0")
    ]
    assert (tmp_path / "out/products.dat").read_text() == "1:3456:6980:70\n99654:10:7:-1\n"
    data = Dataset.load(tmp_path / "out")
    assert (len(data.log), data.about["zone"]) == (4, "UTC+8")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("actions.parquet", "dataset.json", "products.dat", "users.dat")
    ]


@pytest.mark.parametrize(
    "actions",
    [
        "\ufeff" + HEADER.replace("\n", "\r\n") + "1,1,2018-02-01 23:45:28,,2\r\n\r\n",
        "type,sku_id,user_id,action_time\n2,1,1,2018-02-01 23:45:28",
        HEADER + "1.0,1.0,2018-02-01 23:45:28.0,,2.0\n",
        '"user_id","sku_id","action_time","module_id","type"\n"1","1","2018-02-01 23:45:28","","2"\n',
    ],
    ids=["BOM and CRLF", "reordered columns", "floats", "quotes"],
)
def test_variants_of_the_action_file_are_accepted(files: Files, tmp_path: Path, actions: str) -> None:
    jdata.prepare(files(actions=actions), tmp_path / "out", strict=True)
    assert actions_of(tmp_path / "out") == [("1", "1", FIRST, 2)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,1,2018-02-01 23:45:28,2", "expected 5 fields"),
        (",1,2018-02-01 23:45:28,,2", "user_id is empty"),
        ("x,1,2018-02-01 23:45:28,,2", "user_id 'x' is not a whole number"),
        ("1,1.5,2018-02-01 23:45:28,,2", "sku_id '1.5' is not a whole number"),
        ("1,1,2018-02-30 23:45:28,,2", "action_time '2018-02-30 23:45:28' is not a time"),
        ("1,1,2018-02-01,,2", "is not a time like 2018-02-01 23:45:28"),
        ("1,1,1517443200,,2", "is not a time"),
        ("1,1,2018-02-01 23:45:28,,6", "type '6' is not one of 1 to 5"),
        ("1,1,2018-02-01 23:45:28,,", "type '' is not one of"),
        ("1,1\x00,2018-02-01 23:45:28,,2", "contains a control character"),
    ],
)
def test_bad_line_is_counted_shown_and_skipped(files: Files, tmp_path: Path, line: str, reason: str) -> None:
    source = files(actions=good_actions_then(line + "\n"))
    report = jdata.prepare(source, tmp_path / "out").reports[2]
    assert (report.lines, report.bad, report.first[0][0]) == (1001, 1, 1002)
    assert reason in report.first[0][1]
    assert len(actions_of(tmp_path / "out")) == 1000
    with pytest.raises(DataError, match=r"jdata_action\.csv:1002: "):
        jdata.prepare(source, tmp_path / "strict", strict=True)


@given(
    st.lists(
        st.sampled_from(
            ["1", "7.0", "-1", "", " 2", "2018-02-01 23:45:28", "2018-13-01 00:00:00", '"3"', "x", "٣"]
        ),
        min_size=4,
        max_size=6,
    )
)
def test_line_is_bad_exactly_if_there_is_a_reason(cells: list[str]) -> None:
    """The check of whole blocks and the explanation of single lines agree; otherwise `note_bad` raises."""
    names, line = ("user_id", "sku_id", "action_time", "module_id", "type"), ",".join(cells)
    block = lines.cells_of(pl.DataFrame({"number": [2], "line": [line]}), ",", names)
    block = block.with_columns(pl.col(names).str.strip_chars(lines.QUOTES))
    report = lines.BadLines(Path("jdata_action.csv"))
    if jdata.check_actions(block, names, report, strict=False).height:
        jdata._explain_action(line, names)
    else:
        assert report.first[0][1]


def test_more_than_one_percent_bad_lines_writes_nothing(files: Files, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"11 of 1,011 lines are bad"):
        jdata.prepare(files(actions=good_actions_then("bad\n" * 11)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0,5,1,2015-01-02,5,5,20,176,1933", "'0' is reserved"),
        ("1.0,5,1,2015-01-02,5,5,20,176,1933", "user_id '1' is a duplicate"),
        ("9,old,1,2015-01-02,5,5,20,176,1933", "age 'old' is not a whole number"),
        ("9,5,1", "expected 9 fields"),
    ],
)
def test_bad_user_is_explained(files: Files, tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(DataError, match=rf"jdata_user\.csv: 1 of 4 lines are bad(.|\n)*:5: .*{reason}"):
        jdata.prepare(files(users=USERS + line), tmp_path / "out")


@pytest.mark.parametrize("name", ["users", "products", "actions", "shops"])
def test_missing_column_or_empty_file_is_an_error(files: Files, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"must name the columns; missing: .*(user|sku|shop)_id"):
        jdata.prepare(files(**{name: "1,2,3\n"}), tmp_path / "out")
    with pytest.raises(DataError, match=r"jdata_.*\.csv: no "):
        jdata.prepare(files(**{name: ""}), tmp_path / "out")


def test_actions_without_user_or_product_and_duplicates_are_dropped_and_counted(
    files: Files, tmp_path: Path
) -> None:
    unknown = "9,1,2018-02-01 23:45:28,,2\n1,9,2018-02-01 23:45:28,,2\n9,9,2018-02-01 23:45:28,,2\n"
    # A different module id does not make it a different action.
    repeats = "1,1,2018-02-01 23:45:28,777,2\n" * 2
    prepared = jdata.prepare(files(actions=ACTIONS + unknown + repeats), tmp_path / "out", strict=True)
    dropped = {"unknown_users": 2, "unknown_products": 2, "actions": 3, "duplicates": 2}
    assert prepared.dropped == json.loads((tmp_path / "out/dataset.json").read_text())["dropped"] == dropped
    assert "3 actions dropped: 2 with an unknown user, 2 with an unknown product" in prepared.summary()
    assert "2 actions dropped: duplicates" in prepared.summary()
    assert len(actions_of(tmp_path / "out")) == 4


def test_shops_are_checked_if_their_file_exists(files: Files, tmp_path: Path) -> None:
    source = files(products=PRODUCTS + "5,1,8,70,2017-03-04\n6,1,,70,2017-03-04\n")
    assert jdata.prepare(source, tmp_path / "out").notes == [
        "1 products have a shop that is not in jdata_shop.csv"
    ]
    assert jdata.prepare(files(shops=None), tmp_path / "out").notes == [
        "jdata_shop.csv is missing: the products' shops were not checked"
    ]


def test_sorting_in_buckets_of_days_gives_the_same_data_set(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [f"1,{sku},2018-02-{day:02} 12:00:{day:02},,1\n" for day in range(28, 0, -1) for sku in (1, 99654)]
    jdata.prepare(files(actions=HEADER + "".join(days * 2)), tmp_path / "one")
    monkeypatch.setattr(jdata, "BUCKET_ROWS", 7)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 200)
    prepared = jdata.prepare(files(actions=HEADER + "".join(days * 2)), tmp_path / "many")
    assert actions_of(tmp_path / "one") == actions_of(tmp_path / "many")
    assert prepared.counts["actions"] == prepared.dropped["duplicates"] == 56


def test_gaps_in_the_log_are_noted(files: Files, tmp_path: Path) -> None:
    def day(number: int, kind: int, count: int) -> str:
        return "".join(
            f"1,1,2018-02-{number:02} 20:{second // 60:02}:{second % 60:02},,{kind}\n"
            for second in range(count)
        )

    views = "".join(day(number, 1, 2 if number in (10, 11) else 40) for number in range(1, 21))
    carts = "".join(day(number, 5, 30) for number in range(16, 21))
    follows = "".join(day(number, 3, 1) for number in (3, 9))
    prepared = jdata.prepare(files(actions=HEADER + views + carts + follows), tmp_path / "out")
    assert prepared.notes == [
        "view: almost none on 2018-02-10 to 2018-02-11 (4 in total; usually 40 per day)",
        "cart: none before 2018-02-16 (0 in total; usually 30 per day)",
    ]
    about = json.loads((tmp_path / "out/dataset.json").read_text())
    assert about["notes"] == prepared.notes
    assert about["missing"][1] == {
        **{"type": "cart", "where": "start", "first_day": "2018-02-01", "last_day": "2018-02-15"},
        **{"actions": 0, "usual": 30},
    }
    assert "note: view: almost none" in prepared.summary()


def test_type_that_ends_early_and_day_without_actions_are_gaps() -> None:
    daily = [(day, 1, 100) for day in range(17_000, 17_010) if day != 17_004]
    daily += [(day, 4, 50) for day in range(17_000, 17_007)]
    frame = pl.DataFrame(daily, ["day", "type", "actions"], orient="row")
    assert [(gap.type, gap.where, gap.first_day, gap.last_day) for gap in find_gaps(frame)] == [
        ("view", "middle", "2016-07-22", "2016-07-22"),
        ("comment", "end", "2016-07-25", "2016-07-27"),
    ]


def test_split_is_suggested_or_of_requested_length(files: Files, tmp_path: Path) -> None:
    longer = ACTIONS + "1,1,2018-04-15 23:59:59,,2\n"
    jdata.prepare(files(actions=longer), tmp_path / "out")
    assert (
        Dataset.load(tmp_path / "out").split.until - Dataset.load(tmp_path / "out").split.test_from
        == 12 * DAY_S
    )
    jdata.prepare(files(actions=longer), tmp_path / "out", window_days=7)
    split = Dataset.load(tmp_path / "out").split
    assert split.test_from == int(datetime(2018, 4, 8, 16, tzinfo=UTC).timestamp())
    assert split.valid_from == split.test_from - 7 * DAY_S
    with pytest.raises(DataError, match="two periods of 40 days leave nothing to learn from"):
        jdata.prepare(files(actions=longer), tmp_path / "out", window_days=40)

"""Preparing a shop's own files and the Complete Journey data set."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs_models.data.dataset import Dataset
from ecrs_models.data.split import Split
from ecrs_models.errors import DataError
from ecrs_models.prepare import complete_journey, files, lines

USERS = "1:5.0:1.0:5.0:20.0:176.0:1933.0\n8888:2.0::3:4:5:6\n"
PRODUCTS = "1:3456:6980:70\n99654:1:2:3\n"
ACTIONS = "user_id,sku_id,ts,type\n1,1,1517443200,order\n8888,99654,1517443300,1\n8888,1,1517443400,Cart\n"

Shop = Callable[..., Path]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A function that writes a shop's files, default or as passed, and returns their directory."""

    def write(users: str = USERS, products: str = PRODUCTS, actions: str | bytes = ACTIONS) -> Path:
        source = tmp_path / "shop"
        source.mkdir(exist_ok=True)
        (source / "users.dat").write_text(users)
        (source / "products.dat").write_text(products)
        content = actions if isinstance(actions, bytes) else actions.encode()
        (source / "actions.csv").write_bytes(content)
        return source

    return write


def good_actions_then(bad: str, good: int = 1000) -> str:
    return "1,1,1517443200,order\n" * good + bad


def actions_of(out: Path) -> list[tuple[str, str, int, int]]:
    return pl.read_parquet(out / "actions.parquet").rows()


def test_shop_files_become_a_data_set(shop: Shop, tmp_path: Path) -> None:
    prepared = files.prepare(shop(), tmp_path / "out")
    assert prepared.counts == {"users": 2, "products": 2, "actions": 3}
    assert actions_of(tmp_path / "out") == [
        ("1", "1", 1517443200, 2),
        ("8888", "99654", 1517443300, 1),
        ("8888", "1", 1517443400, 5),
    ]
    assert (tmp_path / "out/users.dat").read_text().splitlines()[1] == "8888:2.0:-1:3:4:5:6"
    data = Dataset.load(tmp_path / "out")
    assert (data.name, len(data.log)) == ("shop", 3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("actions.parquet", "dataset.json", "products.dat", "users.dat")
    ]


@pytest.mark.parametrize(
    "actions",
    [
        "1,1,1517443200,2\n",
        "1,1,1517443200,2",
        "\ufeffuser_id,sku_id,ts,type\r\n1,1,1517443200,2\r\n\r\n",
        "ts,extra,type,sku_id,user_id\n1517443200,x,order,1,1\n",
        '"user_id","sku_id","ts","type"\n"1","1","1517443200","ORDER"\n',
        "1 , 1 , 1517443200 , order \n",
    ],
    ids=["no header", "no final newline", "BOM and CRLF", "reordered columns", "quotes", "spaces"],
)
def test_variants_of_the_action_file_are_accepted(shop: Shop, tmp_path: Path, actions: str) -> None:
    prepared = files.prepare(shop(actions=actions), tmp_path / "out", strict=True)
    assert actions_of(tmp_path / "out") == [("1", "1", 1517443200, 2)]
    assert prepared.reports[2].bad == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,1,1517443200", "expected 4 fields user_id,sku_id,ts,type, found 3"),
        ("1,1,1517443200,order,x", "found 5"),
        (",1,1517443200,order", "user_id is empty"),
        ("1,,1517443200,order", "sku_id is empty"),
        ("1,1,2018-02-01,order", "ts '2018-02-01' is not a Unix time in seconds"),
        ("1,1,1517443200000,order", "is not a Unix time in seconds"),
        ("1,1,1517443200,buy", "action type 'buy' is none of view, order"),
        ("1,1,1517443200,6", "action type '6'"),
        ("1,1\x00,1517443200,order", "contains a control character"),
    ],
)
def test_bad_line_is_counted_shown_and_skipped(shop: Shop, tmp_path: Path, line: str, reason: str) -> None:
    report = files.prepare(shop(actions=good_actions_then(line + "\n")), tmp_path / "out").reports[2]
    assert (report.lines, report.bad) == (1001, 1)
    number, shown = report.first[0]
    assert number == 1001
    assert reason in shown
    assert len(actions_of(tmp_path / "out")) == 1000


def test_line_of_invalid_utf8_is_bad(shop: Shop, tmp_path: Path) -> None:
    report = files.prepare(
        shop(actions=good_actions_then("").encode() + b"\xff,1,1,1\n"), tmp_path / "out"
    ).reports[2]
    assert report.first == [(1001, "not UTF-8")]


def test_line_numbers_continue_across_blocks(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 100)
    text = (
        "user_id,sku_id,ts,type\n" + good_actions_then("bad\n", 998) + "\n" + good_actions_then("worse", 500)
    )
    report = files.prepare(shop(actions=text), tmp_path / "out").reports[2]
    assert [number for number, _ in report.first] == [1000, 1502]
    assert len(actions_of(tmp_path / "out")) == 1498


def test_only_first_ten_bad_lines_are_shown(shop: Shop, tmp_path: Path) -> None:
    report = files.prepare(shop(actions=good_actions_then("bad\n" * 12, 2000)), tmp_path / "out").reports[2]
    assert (report.bad, len(report.first)) == (12, 10)


@pytest.mark.parametrize(
    ("users", "reason"),
    [
        ("9:1:2:3", "expected 7 fields"),
        (":1:2:3:4:5:6", "id is empty"),
        ("0:1:2:3:4:5:6", "'0' is reserved for users without an id"),
        ("1:1:2:3:4:5:6", "user_id '1' is a duplicate"),
    ],
)
def test_more_than_one_percent_bad_users_is_an_error(
    shop: Shop, tmp_path: Path, users: str, reason: str
) -> None:
    with pytest.raises(DataError, match=rf"users\.dat: 1 of 3 lines are bad(.|\n)*users\.dat:3: .*{reason}"):
        files.prepare(shop(users=USERS + users), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sku_with_a_separator_of_history_lines_is_bad(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"products\.dat:3: a sku cannot hold any of"):
        files.prepare(shop(products=PRODUCTS + "a;b:1:2:3"), tmp_path / "out")


def test_more_than_one_percent_bad_lines_writes_nothing(shop: Shop, tmp_path: Path) -> None:
    source = shop(actions=good_actions_then("bad\n" * 11, 1000))
    with pytest.raises(DataError, match=r"11 of 1,011 lines are bad"):
        files.prepare(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_strict_mode_fails_on_first_bad_line(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"actions\.csv:1001: expected 4 fields"):
        files.prepare(shop(actions=good_actions_then("bad\nworse\n")), tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["users.dat", "products.dat", "actions.csv"])
def test_unreadable_file_is_reported_and_existing_data_set_kept(
    shop: Shop, tmp_path: Path, name: str
) -> None:
    source = shop()
    files.prepare(source, tmp_path / "out")
    before = actions_of(tmp_path / "out")
    (source / name).unlink()
    (source / name).mkdir()
    with pytest.raises(DataError, match=rf"{name}: cannot be read"):
        files.prepare(source, tmp_path / "out")
    assert actions_of(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "shop"]


@pytest.mark.parametrize("empty", ["users", "products", "actions"])
def test_empty_file_is_an_error(shop: Shop, tmp_path: Path, empty: str) -> None:
    with pytest.raises(DataError, match=rf"{empty}\.(dat|csv): no "):
        files.prepare(shop(**{empty: ""}), tmp_path / "out")


def test_actions_of_unknown_users_or_products_are_dropped_and_counted(shop: Shop, tmp_path: Path) -> None:
    unknown = "9,1,1517443200,2\n1,9,1517443200,2\n9,9,1517443200,2\n"
    prepared = files.prepare(shop(actions=ACTIONS + unknown), tmp_path / "out", strict=True)
    assert prepared.dropped == {"unknown_users": 2, "unknown_products": 2, "actions": 3}
    assert "3 actions dropped: 2 with an unknown user, 2 with an unknown product" in prepared.summary()
    assert json.loads((tmp_path / "out/dataset.json").read_text())["dropped"]["actions"] == 3


def test_actions_of_unknown_users_only_are_an_error(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no action has a known user and a known product"):
        files.prepare(shop(actions="9,1,1517443200,2\n"), tmp_path / "out")


def test_directory_that_is_no_data_set_is_not_overwritten(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").touch()
    with pytest.raises(DataError, match="not overwritten"):
        files.prepare(shop(), tmp_path / "out")
    assert (tmp_path / "out/precious").exists()


@given(st.lists(st.text(alphabet='1a0,:;" \t\x00\x85\u2028é-.order', max_size=14), max_size=30))
def test_line_is_bad_exactly_if_there_is_a_reason(texts: list[str]) -> None:
    """The check of whole blocks and the explanation of single lines agree; otherwise `_reason` raises."""
    names = tuple(files.ACTION_SCHEMA)
    for number, line in lines._lines("\n".join(texts).encode(), 1).rows():
        block = pl.DataFrame({"number": [number], "line": [line]})
        report = lines.BadLines(Path("actions.csv"))
        if files.check_actions(block, names, report, strict=False).height:
            files._explain_action(line, names)
        else:
            assert report.first[0][1]


def test_suggested_split_has_two_periods_of_at_most_four_weeks() -> None:
    day = 86_400
    assert Split.suggest(0, 365 * day - 1) == Split(309 * day, 337 * day, 365 * day)
    assert Split.suggest(0, 60 * day - 1) == Split(42 * day, 51 * day, 60 * day)


def test_complete_journey_keeps_bought_merchandise_by_time_and_household() -> None:
    products = pl.DataFrame({"product_id": [1, 2, 3], "department": ["GROCERY", "FUEL", None]})
    transactions = pl.DataFrame(
        {
            "household_id": [2, 1, 1, 1, 1],
            "product_id": [1, 1, 2, 3, 1],
            "quantity": [1, 2, 1, 1, 0],
            "transaction_timestamp": pl.Series([1000, 1000, 2000, 3000, 4000]).cast(pl.Datetime("ms")),
        }
    )
    assert complete_journey.purchases(transactions, products).rows() == [("1", "1", 1, 2), ("2", "1", 1, 2)]


def test_complete_journey_profiles_are_coded_with_unknown_as_minus_one() -> None:
    columns = {
        "household_id": [1],
        "age": ["65+"],
        "income": ["Under 15K"],
        "home_ownership": [None],
        "marital_status": ["Married"],
        "household_size": ["5+"],
        "kids_count": ["0"],
    }
    demographics = pl.DataFrame(columns, schema_overrides={"home_ownership": pl.String})
    table, codes = complete_journey.profiles(pl.Series([1, 2]), demographics)
    assert table.rows() == [("1", "6.0", "1.0", "1.0", "-1", "5.0", "0.0"), ("2", *["-1"] * 6)]
    assert codes["age"]["6.0"] == "65+"


def test_complete_journey_products_have_codes_for_shop_and_category() -> None:
    products = pl.DataFrame(
        {
            "product_id": [1, 2, 3],
            "manufacturer_id": [69, 2, 2],
            "product_type": ["RYE", "ICE", None],
            "product_category": ["BREAD", "FROZEN", None],
        }
    )
    table, codes = complete_journey.catalogue(pl.Series([1, 3]), products)
    assert table.rows() == [("1", "69", "2", "1"), ("3", "2", "-1", "-1")]
    assert codes == {"shop": {"1": "ICE", "2": "RYE"}, "category": {"1": "BREAD", "2": "FROZEN"}}


def test_data_error_gives_message_and_exit_code(shop: Shop, tmp_path: Path) -> None:
    arguments = ["prepare", "files", str(shop(users="")), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "ecrs_cli", *arguments]
    done = subprocess.run(command, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "users.dat: no lines" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_command_line_imports_polars_paddle_and_faiss_lazily() -> None:
    program = (
        "import ecrs_models.commands, sys; print(sorted({'polars', 'paddle', 'faiss'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"

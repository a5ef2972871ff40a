"""The planted world of generated data: products, users, and what each user's next purchase is.

With probability `repeat` a purchase is one of the user's earlier purchases, each as likely as the
other. Otherwise it is by taste: with AFFINITY from one of the user's three preferred categories, and
there with LOYALTY of the user's brand; else from any category as the user's sex likes it. Within a
category or a brand, products are taken by their popularity. All of it is kept beside the data, so
that `ecrs_models.oracle` can say how good recommendations of these data can be at best.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl

from ecrs.domain.entities import ITEM_FIELDS, UNKNOWN
from ecrs_models.data.dataset import USER_COLUMNS
from ecrs_models.synthetic.figures import SEXES, Figures

TRUTH_USERS, TRUTH_PRODUCTS, TRUTH = "truth-users.parquet", "truth-products.parquet", "truth.json"

AFFINITY = 0.75
LOYALTY = 0.6
SLOT_WEIGHTS = (0.5, 0.3, 0.2)
SLOTS = len(SLOT_WEIGHTS)

# Popularity: lognormal, most products out of fashion. Fitted to the sample of jdata2019.json: drawn
# 35,500 times, the shares of the top 1, 10, 100 and 1,000 products and the number of distinct ones
# come within 9 % of the sample's.
SIGMA, IN_FASHION, OUT_OF_FASHION_WEIGHT, CATEGORY_SIZE_POWER = 1.4, 0.12, 0.02, 0.9

PRODUCTS_PER_BRAND, PRODUCTS_PER_SHOP = 35, 34
TIERS = 3
"""Price tiers of brands: who prefers which depends on age and city level."""
TIER_PREFERENCE = 0.7

# Not in the figures: taken to be plausible, in JData's ranges.
AGE_SHARES = (0.02, 0.18, 0.38, 0.26, 0.11, 0.05)
AGE_UNKNOWN, PLACE_UNKNOWN = 0.005, 0.02
PROVINCES, CITIES, COUNTIES_PER_CITY = 31, 380, 8
CITY_LEVELS = (4, 19, 49, 119, 249, CITIES)
"""The first 4 cities, by size, have level 1, those up to the 19th level 2 …"""
ACTIVITY_SHAPE = 0.3
REPEAT_BY_AGE = (0.25, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
"""Mean probability of a repeat: age unknown, then bands 1 to 6."""
REPEAT_SPREAD = 6.0
"""Sum of the parameters of the beta distribution of `repeat` around its mean."""


@dataclass(frozen=True)
class PlantedCatalogue:
    """Products sorted by category, tier and brand. `category`, `tier`, `brand`, `shop`, `sku`: int64,
    shape (products,), brands, shops and skus numbered from 1, categories from 0. `weight`, float64: the
    popularity within the category, sum 1. `below`, shape (products + 1,): the sum of the weights before."""

    category: np.ndarray
    tier: np.ndarray
    brand: np.ndarray
    shop: np.ndarray
    sku: np.ndarray
    weight: np.ndarray
    below: np.ndarray

    @classmethod
    def plant(cls, rng: np.random.Generator, products: int, figures: Figures) -> "PlantedCatalogue":
        sizes = _sizes(figures.category_share**CATEGORY_SIZE_POWER, products)
        category = np.repeat(np.arange(len(sizes)), sizes)
        brands = np.maximum(1, sizes // PRODUCTS_PER_BRAND)
        local = (brands[category] * rng.random(products) ** 1.5).astype(np.int64)
        order = np.lexsort((local, local % TIERS, category))
        category, local = category[order], local[order]
        first = np.cumsum(brands) - brands
        shops = np.maximum(1, sizes // PRODUCTS_PER_SHOP)
        shop = (2 * local + rng.integers(0, 2, products)) % shops[category] + (np.cumsum(shops) - shops)[
            category
        ]
        weight = _popularity(rng, products)
        weight /= np.bincount(category, weight)[category]
        return cls(
            category, local % TIERS,
            brand=rng.permutation(brands.sum())[first[category] + local] + 1,
            shop=rng.permutation(shops.sum())[shop] + 1,
            sku=rng.permutation(products) + 1,
            weight=weight, below=np.concatenate([[0.0], np.cumsum(weight)]),
        )  # fmt: skip

    def ranges(self, key: np.ndarray, values: int) -> tuple[np.ndarray, np.ndarray]:
        """The first row and the row after the last of each value 0 … of `key`, which rises with the rows."""
        bounds = np.searchsorted(key, np.arange(values + 1))
        return bounds[:-1], bounds[1:]

    def draw(self, rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """A row in each range [low, high), by weight."""
        at = self.below[low] + rng.random(len(low)) * (self.below[high] - self.below[low])
        return np.clip(np.searchsorted(self.below, at, side="right") - 1, low, high - 1)

    def table(self) -> pl.DataFrame:
        """products.dat's table, by sku."""
        rows = np.argsort(self.sku)
        columns = (self.sku, self.brand, self.shop, self.category + 1)
        return pl.DataFrame(
            {name: column[rows] for name, column in zip(ITEM_FIELDS, columns, strict=True)}
        ).cast(pl.String)

    def truth(self) -> pl.DataFrame:
        """What the oracle needs, in the order of `table`."""
        rows = np.argsort(self.sku)
        columns = {"category": self.category.astype(np.int16), "brand": self.brand.astype(np.int32)}
        return pl.DataFrame({**columns, "weight": self.weight}).select(pl.all().gather(rows))


@dataclass(frozen=True)
class Tastes:
    """How categories are liked. `seen`, float64, shape (3, categories): by sex, the share of views, sum 1.
    `conversion`, shape (categories,): how many times likelier than on average a look becomes an order.
    `rows`, shape (3,): the share of all actions that a sex makes."""

    seen: np.ndarray
    conversion: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, figures: Figures, linked: float) -> "Tastes":
        """`linked`: the share of actions whose product is an order's, so that its category is an order's."""
        share, female = figures.category_share, figures.female_share
        free = np.maximum(share - linked * figures.order_share, 0.1 * share)
        free /= free.sum()
        by_sex = np.stack([free * (1 - female), free * female, free])
        unknown = figures.sex_share[2]
        rows = np.append(by_sex[:2].sum(axis=1) * (1 - unknown), unknown)
        return cls(by_sex / by_sex.sum(axis=1, keepdims=True), figures.order_share / free, rows)

    def order_rate(self) -> np.ndarray:
        """By sex, orders a look, in relation to the mean: float64, shape (3,)."""
        return self.seen @ self.conversion

    def ordered(self) -> np.ndarray:
        """By sex, the categories of purchases that come from any: float64, shape (3, categories), sum 1."""
        liked = self.seen * self.conversion
        return liked / liked.sum(axis=1, keepdims=True)

    def slot_probabilities(self, sex: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of users with these preferred categories, `slots`, shape (N, SLOTS).

        Where a purchase by taste comes from, each of them, then any: float64, shape (N, SLOTS + 1), sum 1;
        and orders a look, in relation to the mean: shape (N,).
        """
        liked = AFFINITY * np.array(SLOT_WEIGHTS) * self.conversion[slots]
        either = np.column_stack([liked, (1 - AFFINITY) * self.order_rate()[sex]])
        return either / either.sum(axis=1, keepdims=True), either.sum(axis=1)


@dataclass(frozen=True)
class People:
    """`sex`: number in SEXES; `age`, 0 unknown; `slots`, shape (users, SLOTS): preferred categories, `brands`
    the brand in each; `low`, `high`: that brand's rows in the catalogue; `repeat`; `activity`, mean 1."""

    sex: np.ndarray
    age: np.ndarray
    city: np.ndarray
    county: np.ndarray
    level: np.ndarray
    slots: np.ndarray
    brands: np.ndarray
    low: np.ndarray
    high: np.ndarray
    repeat: np.ndarray
    activity: np.ndarray

    @classmethod
    def plant(
        cls,
        rng: np.random.Generator,
        users: int,
        figures: Figures,
        tastes: Tastes,
        catalogue: PlantedCatalogue,
    ) -> "People":
        sex = rng.choice(len(SEXES), users, p=figures.sex_share / figures.sex_share.sum())
        age = 1 + rng.choice(len(AGE_SHARES), users, p=np.array(AGE_SHARES))
        age[rng.random(users) < AGE_UNKNOWN] = 0
        size = 1 / (np.arange(CITIES) + 10)
        city = 1 + rng.choice(CITIES, users, p=size / size.sum())
        level = 1 + np.searchsorted(CITY_LEVELS, city)
        county = (city - 1) * COUNTIES_PER_CITY + rng.integers(1, COUNTIES_PER_CITY + 1, users)
        slots = draw_category(rng, tastes.seen, np.repeat(sex, SLOTS)).reshape(users, SLOTS)
        low, high, brands = _loyalties(rng, catalogue, slots, _tiers(rng, age, level))
        mean = np.array(REPEAT_BY_AGE)[age]
        repeat = rng.beta(mean * REPEAT_SPREAD, (1 - mean) * REPEAT_SPREAD).astype(np.float32)
        activity = rng.gamma(ACTIVITY_SHAPE, 1 / ACTIVITY_SHAPE, users)
        return cls(sex, age, city, county, level, slots, brands, low, high, repeat, activity)

    def table(self, rng: np.random.Generator) -> pl.DataFrame:
        """users.dat's table, ids from 1; places of some users are unknown."""
        here = rng.random(len(self.sex)) >= PLACE_UNKNOWN
        province = (self.city - 1) % PROVINCES + 1
        sex = np.array([0, 1, -1])[self.sex]
        age = np.where(self.age, self.age, -1)
        places = [np.where(here, column, -1) for column in (self.level, province, self.city, self.county)]
        values = pl.DataFrame(dict(zip(USER_COLUMNS[1:], (age, sex, *places), strict=True)))
        written = [
            pl.when(pl.col(name) < 0)
            .then(pl.lit(UNKNOWN))
            .otherwise(pl.col(name).cast(pl.String) + ".0")
            .alias(name)
            for name in values.columns
        ]
        ids = pl.Series("user_id", np.arange(1, len(sex) + 1)).cast(pl.String)
        return values.select(ids, *written)

    def truth(self) -> pl.DataFrame:
        """What the oracle needs, in the order of `table`."""
        columns: dict[str, Any] = {"sex": self.sex.astype(np.int8), "repeat": self.repeat}
        for slot in range(SLOTS):
            columns[f"category_{slot}"] = self.slots[:, slot].astype(np.int16)
            columns[f"brand_{slot}"] = self.brands[:, slot].astype(np.int32)
        return pl.DataFrame(columns)


def draw_category(rng: np.random.Generator, shares: np.ndarray, sex: np.ndarray) -> np.ndarray:
    """A category for each of `sex`, by the row of `shares` that is its own."""
    until = np.cumsum(shares, axis=1)
    until = until / until[:, -1:] + np.arange(len(shares))[:, None]
    found = np.searchsorted(until.ravel(), sex + rng.random(len(sex)), side="right")
    return np.minimum(found - sex * shares.shape[1], shares.shape[1] - 1)


def write_truth(directory: Path, catalogue: PlantedCatalogue, people: People) -> None:
    """The users' and the products' part of the truth; truth.json is the generator's."""
    people.truth().write_parquet(directory / TRUTH_USERS)
    catalogue.truth().write_parquet(directory / TRUTH_PRODUCTS)


def _sizes(shares: np.ndarray, total: int) -> np.ndarray:
    """`total` divided by `shares`, at least 1 each: int64, sum `total`."""
    exact = 1 + (total - len(shares)) * shares / shares.sum()
    sizes = exact.astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    return sizes


def _popularity(rng: np.random.Generator, products: int) -> np.ndarray:
    """Quantiles of a lognormal in random order, so that the tail is the same for every seed."""
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((number + 0.5) / products) for number in range(products)])
    fashion = np.where(rng.random(products) < IN_FASHION, 1.0, OUT_OF_FASHION_WEIGHT)
    return np.exp(SIGMA * rng.permutation(quantiles)) * fashion


def _tiers(rng: np.random.Generator, age: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The price tier a user prefers: the older and the larger the city, the likelier a higher one."""
    lean = np.where(age > 0, 0.5 * (age - 3.5), 0) - 0.4 * (level - 3.5)
    odds = np.exp(np.stack([-lean, np.zeros_like(lean), lean], axis=1))
    until = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
    return (rng.random(len(age))[:, None] > until[:, :-1]).sum(axis=1)


def _loyalties(
    rng: np.random.Generator, catalogue: PlantedCatalogue, slots: np.ndarray, tier: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each user's preferred categories the rows [low, high) of a brand, and the brand: (users, SLOTS).

    The brand is that of a product drawn by popularity, mostly among those of the user's tier.
    """
    groups, categories = slots * TIERS + tier[:, None], int(catalogue.category[-1]) + 1
    tiers = catalogue.category * TIERS + catalogue.tier
    low, high = (bound[groups] for bound in catalogue.ranges(tiers, categories * TIERS))
    all_low, all_high = (bound[slots] for bound in catalogue.ranges(catalogue.category, categories))
    own = (rng.random(slots.shape) < TIER_PREFERENCE) & (low < high)
    low, high = np.where(own, low, all_low), np.where(own, high, all_high)
    drawn = catalogue.draw(rng, low.ravel(), high.ravel()).reshape(slots.shape)
    starts = np.flatnonzero(np.r_[True, np.diff(catalogue.brand) != 0])
    ends = np.append(starts[1:], len(catalogue.brand))
    line = np.searchsorted(starts, drawn, side="right") - 1
    return starts[line], ends[line], catalogue.brand[drawn]

"""The generative model of the synthetic data: the catalogue, the users, and the distribution of purchases.

Every user has three preferred categories, the slots, with a preferred brand in each. A purchase is drawn in
these steps:

1. With the user's own probability, `repeat`, it repeats one of the user's purchases in earlier sessions, all
   equally likely. Otherwise, or without earlier purchases, it is a purchase by preference, drawn in steps 2
   to 4.
2. The category is one of the preferred ones, with weights AFFINITY · SLOT_WEIGHTS, or drawn from all
   categories as the user's sex prefers them, with weight 1 - AFFINITY. These are the shares of the user's
   views. For purchases, each weight is multiplied by the ratio of orders to views of its category or, for the
   last one, of the user's sex.
3. In a preferred category, the product is of the user's brand with probability LOYALTY, else of any brand.
4. Within the brand or category, products are drawn in proportion to their popularity.

These preferences do not change over time. They are written beside the data as the planted ground truth, from
which `ecrs_models.synthetic.oracle` computes the best possible ranking.
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
"""Probability that a view is drawn from the user's preferred categories, not from all categories."""
LOYALTY = 0.6
"""Probability that a product drawn from a preferred category is of the user's preferred brand there."""
SLOT_WEIGHTS = (0.5, 0.3, 0.2)
"""Distribution of a user's views of preferred categories over the slots."""
SLOTS = len(SLOT_WEIGHTS)

# Popularity is lognormal, and most products are out of fashion. The parameters are fitted to the sample
# behind jdata2019.json: in 35,500 draws, the shares of the top 1, 10, 100 and 1,000 products and the number
# of distinct products come within 9 % of the sample's.
SIGMA, IN_FASHION, OUT_OF_FASHION_WEIGHT, CATEGORY_SIZE_POWER = 1.4, 0.12, 0.02, 0.9

PRODUCTS_PER_BRAND, PRODUCTS_PER_SHOP = 35, 34
TIERS = 3
"""Number of price tiers of brands. The tier that a user prefers depends on age and city level."""
TIER_PREFERENCE = 0.7
"""Probability that a user's brand is chosen from the preferred tier only."""

# No figures are published for these. They are plausible values in JData's ranges.
AGE_SHARES = (0.02, 0.18, 0.38, 0.26, 0.11, 0.05)
AGE_UNKNOWN, PLACE_UNKNOWN = 0.005, 0.02
PROVINCES, CITIES, COUNTIES_PER_CITY = 31, 380, 8
CITY_LEVELS = (4, 19, 49, 119, 249, CITIES)
"""Last city of each city level: the 4 largest cities have level 1, those up to the 19th level 2, etc."""
ACTIVITY_SHAPE = 0.3
"""Shape of the gamma distribution of users' activity."""
REPEAT_BY_AGE = (0.25, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
"""Mean of `repeat`, the probability of a repeat purchase: for unknown age, then for age bands 1 to 6."""
REPEAT_SPREAD = 6.0
"""Sum of both parameters of the beta distribution of `repeat` around its mean."""


@dataclass(frozen=True)
class PlantedCatalogue:
    """Products sorted by category, price tier and brand.

    `category`, `tier`, `brand`, `shop`, `sku`: int64, shape (products,); brands, shops and skus are numbered
    from 1, categories and tiers from 0. `weight`, float64, shape (products,): popularity within the
    category, sum 1 per category. `below`, float64, shape (products + 1,): the sum of the weights of all rows
    before.
    """

    category: np.ndarray
    tier: np.ndarray
    brand: np.ndarray
    shop: np.ndarray
    sku: np.ndarray
    weight: np.ndarray
    below: np.ndarray

    @classmethod
    def plant(cls, rng: np.random.Generator, products: int, figures: Figures) -> "PlantedCatalogue":
        """Draw a catalogue of `products` products."""
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
        """Return the first row, and the row after the last, of each value from 0 to `values` - 1 of `key`.

        `key`, shape (products,), must be ascending.
        """
        bounds = np.searchsorted(key, np.arange(values + 1))
        return bounds[:-1], bounds[1:]

    def draw(self, rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Draw one row from each range [low, high), with probabilities in proportion to `weight`."""
        target = self.below[low] + rng.random(len(low)) * (self.below[high] - self.below[low])
        return np.clip(np.searchsorted(self.below, target, side="right") - 1, low, high - 1)

    def table(self) -> pl.DataFrame:
        """Return the table of products.dat, sorted by sku."""
        rows = np.argsort(self.sku)
        columns = (self.sku, self.brand, self.shop, self.category + 1)
        return pl.DataFrame(
            {name: column[rows] for name, column in zip(ITEM_FIELDS, columns, strict=True)}
        ).cast(pl.String)

    def truth(self) -> pl.DataFrame:
        """Return the ground truth about the products that the oracle needs, in the order of `table`."""
        rows = np.argsort(self.sku)
        columns = {"category": self.category.astype(np.int16), "brand": self.brand.astype(np.int32)}
        return pl.DataFrame({**columns, "weight": self.weight}).select(pl.all().gather(rows))


@dataclass(frozen=True)
class Tastes:
    """Preferences for categories by sex, in the order of SEXES.

    `seen`, float64, shape (3, categories): each category's share of the views of a sex, sum 1 per sex;
    `conversion`, float64, shape (categories,): the orders per view of a category, relative to the average;
    `rows`, float64, shape (3,): the share of each sex in all actions.
    """

    seen: np.ndarray
    conversion: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, figures: Figures, linked: float) -> "Tastes":
        """Compute the preferences that reproduce the published shares of categories.

        `linked` is the share of all actions that are of an ordered product. Their categories are distributed
        as those of orders, so that the other actions must make up for the difference.
        """
        share, female = figures.category_share, figures.female_share
        free = np.maximum(share - linked * figures.order_share, 0.1 * share)
        free /= free.sum()
        by_sex = np.stack([free * (1 - female), free * female, free])
        unknown = figures.sex_share[2]
        rows = np.append(by_sex[:2].sum(axis=1) * (1 - unknown), unknown)
        return cls(by_sex / by_sex.sum(axis=1, keepdims=True), figures.order_share / free, rows)

    def order_rate(self) -> np.ndarray:
        """Return the orders per view of each sex, relative to the average: float64, shape (3,)."""
        return self.seen @ self.conversion

    def ordered(self) -> np.ndarray:
        """Return the distribution of categories for purchases from any category, by sex.

        float64, shape (3, categories), sum 1 per sex.
        """
        orders = self.seen * self.conversion
        return orders / orders.sum(axis=1, keepdims=True)

    def slot_probabilities(self, sex: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the purchases by preference of each user come from, and the users' order rates.

        `sex`, shape (N,), are numbers in SEXES; `slots`, shape (N, SLOTS), preferred categories. The first
        result, float64, shape (N, SLOTS + 1), sum 1 per user, holds the probabilities of each preferred
        category, then of any category. The second, float64, shape (N,), is the orders per view relative to
        the average.
        """
        preferred = AFFINITY * np.array(SLOT_WEIGHTS) * self.conversion[slots]
        rates = np.column_stack([preferred, (1 - AFFINITY) * self.order_rate()[sex]])
        return rates / rates.sum(axis=1, keepdims=True), rates.sum(axis=1)


@dataclass(frozen=True)
class People:
    """The users' profiles and preferences, one row per user.

    `sex`: number in SEXES; `age`: age band, 0 if unknown; `city`, `county`, `level`: place and city level;
    `slots`, shape (users, SLOTS): preferred categories, not necessarily distinct; `brands`, shape (users,
    SLOTS): the preferred brand in each; `low`, `high`: the range [low, high) of that brand's rows in the
    catalogue; `repeat`: probability that a purchase repeats an earlier one; `activity`, mean 1: relative
    number of sessions beyond the first.
    """

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
        """Draw `users` users."""
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
        """Return the table of users.dat, with ids from 1. The places of some users are unknown."""
        known = rng.random(len(self.sex)) >= PLACE_UNKNOWN
        province = (self.city - 1) % PROVINCES + 1
        sex = np.array([0, 1, -1])[self.sex]
        age = np.where(self.age, self.age, -1)
        places = [np.where(known, column, -1) for column in (self.level, province, self.city, self.county)]
        values = pl.DataFrame(dict(zip(USER_COLUMNS[1:], (age, sex, *places), strict=True)))
        formatted = [
            pl.when(pl.col(name) < 0)
            .then(pl.lit(UNKNOWN))
            .otherwise(pl.col(name).cast(pl.String) + ".0")
            .alias(name)
            for name in values.columns
        ]
        ids = pl.Series("user_id", np.arange(1, len(sex) + 1)).cast(pl.String)
        return values.select(ids, *formatted)

    def truth(self) -> pl.DataFrame:
        """Return the ground truth about the users that the oracle needs, in the order of `table`."""
        columns: dict[str, Any] = {"sex": self.sex.astype(np.int8), "repeat": self.repeat}
        for slot in range(SLOTS):
            columns[f"category_{slot}"] = self.slots[:, slot].astype(np.int16)
            columns[f"brand_{slot}"] = self.brands[:, slot].astype(np.int32)
        return pl.DataFrame(columns)


def draw_category(rng: np.random.Generator, shares: np.ndarray, sex: np.ndarray) -> np.ndarray:
    """Draw a category for each user from the distribution of the user's sex.

    `shares`, float64, shape (3, categories), are the distributions; `sex`, shape (N,), numbers in SEXES.
    """
    cumulative = np.cumsum(shares, axis=1)
    cumulative = cumulative / cumulative[:, -1:] + np.arange(len(shares))[:, None]  # row n covers n to n + 1
    cell = np.searchsorted(cumulative.ravel(), sex + rng.random(len(sex)), side="right")
    return np.minimum(cell - sex * shares.shape[1], shares.shape[1] - 1)


def write_truth(directory: Path, catalogue: PlantedCatalogue, people: People) -> None:
    """Write the users' and the products' part of the ground truth. The generator writes truth.json."""
    people.truth().write_parquet(directory / TRUTH_USERS)
    catalogue.truth().write_parquet(directory / TRUTH_PRODUCTS)


def _sizes(shares: np.ndarray, total: int) -> np.ndarray:
    """Divide `total` in proportion to `shares`, at least 1 each: int64, sum `total`."""
    exact = 1 + (total - len(shares)) * shares / shares.sum()
    sizes = exact.astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    return sizes


def _popularity(rng: np.random.Generator, products: int) -> np.ndarray:
    """Return popularity weights, float64 (products,).

    They are the quantiles of a lognormal distribution in random order, not draws, so that the tail is the
    same for every seed.
    """
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((number + 0.5) / products) for number in range(products)])
    fashion = np.where(rng.random(products) < IN_FASHION, 1.0, OUT_OF_FASHION_WEIGHT)
    return np.exp(SIGMA * rng.permutation(quantiles)) * fashion


def _tiers(rng: np.random.Generator, age: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Draw each user's preferred price tier. Higher tiers are more likely with age and size of the city."""
    preference = np.where(age > 0, 0.5 * (age - 3.5), 0) - 0.4 * (level - 3.5)
    odds = np.exp(np.stack([-preference, np.zeros_like(preference), preference], axis=1))
    cumulative = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
    return (rng.random(len(age))[:, None] > cumulative[:, :-1]).sum(axis=1)


def _loyalties(
    rng: np.random.Generator, catalogue: PlantedCatalogue, slots: np.ndarray, tier: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the preferred brand in each of the users' preferred categories.

    Returns the range of its rows in the catalogue, low and high, and the brand, each of shape (users,
    SLOTS). It is the brand of a product drawn by popularity: with probability TIER_PREFERENCE among those of
    the user's price tier, if the category has any, otherwise among all of the category.
    """
    groups, categories = slots * TIERS + tier[:, None], int(catalogue.category[-1]) + 1
    tiers = catalogue.category * TIERS + catalogue.tier
    low, high = (bound[groups] for bound in catalogue.ranges(tiers, categories * TIERS))
    all_low, all_high = (bound[slots] for bound in catalogue.ranges(catalogue.category, categories))
    in_tier = (rng.random(slots.shape) < TIER_PREFERENCE) & (low < high)
    low, high = np.where(in_tier, low, all_low), np.where(in_tier, high, all_high)
    drawn = catalogue.draw(rng, low.ravel(), high.ravel()).reshape(slots.shape)
    starts = np.flatnonzero(np.r_[True, np.diff(catalogue.brand) != 0])
    ends = np.append(starts[1:], len(catalogue.brand))
    block = np.searchsorted(starts, drawn, side="right") - 1
    return starts[block], ends[block], catalogue.brand[drawn]

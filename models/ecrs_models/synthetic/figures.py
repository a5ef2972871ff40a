"""Published statistics of JData 2019, to which the synthetic data are calibrated."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.domain.actions import ActionType
from ecrs_models.prepare.jdata import ZONE_S

FIGURES = Path(__file__).with_name("jdata2019.json")
OTHER = "Other"
SEXES = ("M", "W", "U")
"""Male, female, unknown. JData encodes them as 0, 1, -1."""
VIEWS_LEFT = 0.02
"""Share of the usual number of views on days "almost without views". Assumed: no figure is published."""
_TYPES = tuple(ActionType)[1:]


@dataclass(frozen=True)
class Figures:
    """The statistics of jdata2019.json as arrays.

    Categories are numbered from 0 in the order of the file, followed by those without a name.
    """

    raw: dict[str, Any]

    @classmethod
    def load(cls) -> "Figures":
        """Read jdata2019.json."""
        return cls(json.loads(FIGURES.read_text(encoding="utf-8")))

    @property
    def days(self) -> int:
        """Length of the data in days."""
        return self.raw["days"]

    @property
    def first_second(self) -> int:
        """Midnight of the first day in China Standard Time, in Unix seconds."""
        midnight = datetime.fromisoformat(self.raw["first_day"]).replace(tzinfo=UTC)
        return int(midnight.timestamp()) - ZONE_S

    def day(self, text: str) -> int:
        """Return the number of a day given in ISO 8601; the first day is 0."""
        return (date.fromisoformat(text) - date.fromisoformat(self.raw["first_day"])).days

    @cached_property
    def category_names(self) -> list[str]:
        """One name per category. Those without a name are called "Other 1", "Other 2" and so on."""
        named = [name for name in self.raw["category_share_all"] if name != OTHER]
        return named + [f"{OTHER} {number + 1}" for number in range(self.raw["categories"] - len(named))]

    @cached_property
    def category_share(self) -> np.ndarray:
        """Share of each category in all actions: float64, shape (categories,), sum 1."""
        known = self.raw["category_share_all"]
        unnamed = sum(name not in known for name in self.category_names)
        shares = [known.get(name, known[OTHER] / unnamed) for name in self.category_names]
        return np.array(shares) / sum(shares)

    @cached_property
    def order_share(self) -> np.ndarray:
        """Share of each category in orders: float64, shape (categories,), sum 1.

        Categories without a published figure divide the remaining orders in proportion to `category_share`,
        but none gets more than the smallest published share.
        """
        known = self.raw["category_share_order"]
        share = np.array([known.get(name, 0.0) for name in self.category_names])
        remaining, is_estimated = 1 - share.sum(), share == 0
        for _ in range(len(share)):
            total = self.category_share[is_estimated].sum()
            share[is_estimated] = self.category_share[is_estimated] * remaining / total
            over = is_estimated & (share > min(known.values()))
            if not over.any():
                break
            share[over], is_estimated = min(known.values()), is_estimated & ~over
            remaining = 1 - share[~is_estimated].sum()
        return share / share.sum()

    @cached_property
    def female_share(self) -> np.ndarray:
        """Share of women in the actions of each category: float64, shape (categories,).

        Categories without a published figure get the mean of the others.
        """
        known = self.raw["female_share_by_category"]
        share = np.array([known.get(name, np.nan) for name in self.category_names])
        published = ~np.isnan(share)
        mean = np.average(share[published], weights=self.category_share[published])
        return np.where(published, share, mean)

    @cached_property
    def sex_share(self) -> np.ndarray:
        """Share of each sex in the users, in the order of SEXES."""
        return np.array([self.raw["gender_share_users"][sex] for sex in SEXES])

    def hour_share(self, kind: str) -> np.ndarray:
        """Return the share of each hour, local time, in a day's actions: float64, shape (24,), sum 1.

        `kind` is "view" or "order".
        """
        share = np.array(self.raw[f"hour_share_{kind}"])
        return share / share.sum()

    @cached_property
    def type_share(self) -> np.ndarray:
        """Share of each day and type in all actions: float64, shape (days, 5), column ActionType - 1, sum 1.

        Cart actions occur only on the last days of the data, and there are almost no views on a few days.
        Apart from that, all days with carts have the same shares, and so do all days without. The published
        figures are those of all days and those of the days with carts; the difference gives the days
        without.
        """
        total, carts = (_by_type(self.raw[f"type_share_{name}"]) for name in ("all_days", "cart_days"))
        cart = ActionType.CART - 1
        with_carts = np.arange(self.days) >= self.day(self.raw["carts_from"])
        kept = np.ones((self.days, len(_TYPES)))
        kept[[self.day(text) for text in self.raw["almost_without_views"]], ActionType.VIEW - 1] = VIEWS_LEFT
        carts *= total[cart] / carts[cart]  # as a share of the actions of all days
        rate = (total - carts) / kept[~with_carts].sum(axis=0)
        return np.where(with_carts[:, None], carts / with_carts.sum(), rate * kept)


def _by_type(shares: dict[str, float]) -> np.ndarray:
    values = np.array([shares[kind.name.lower()] for kind in _TYPES])
    return values / values.sum()

"""What is known of JData 2019 in figures, for data of its shape."""

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
"""Male, female, unknown; JData writes 0, 1, -1."""
VIEWS_LEFT = 0.02
"""Of the usual views on a day "almost without views"; taken for want of a figure."""
_TYPES = tuple(ActionType)[1:]


@dataclass(frozen=True)
class Figures:
    """The file's figures as arrays. Categories are numbered from 0, in the file's order, the unnamed last."""

    raw: dict[str, Any]

    @classmethod
    def load(cls) -> "Figures":
        return cls(json.loads(FIGURES.read_text(encoding="utf-8")))

    @property
    def days(self) -> int:
        return self.raw["days"]

    @property
    def first_second(self) -> int:
        """Unix seconds of the first day's midnight, China Standard Time."""
        midnight = datetime.fromisoformat(self.raw["first_day"]).replace(tzinfo=UTC)
        return int(midnight.timestamp()) - ZONE_S

    def day(self, text: str) -> int:
        """The number of a day, 0 the first one."""
        return (date.fromisoformat(text) - date.fromisoformat(self.raw["first_day"])).days

    @cached_property
    def category_names(self) -> list[str]:
        """One name a category; the unnamed are "Other 1", "Other 2" …"""
        named = [name for name in self.raw["category_share_all"] if name != OTHER]
        return named + [f"{OTHER} {number + 1}" for number in range(self.raw["categories"] - len(named))]

    @cached_property
    def category_share(self) -> np.ndarray:
        """Of all actions: float64, shape (categories,), sum 1."""
        shares = self.raw["category_share_all"]
        unnamed = sum(name not in shares for name in self.category_names)
        found = [shares.get(name, shares[OTHER] / unnamed) for name in self.category_names]
        return np.array(found) / sum(found)

    @cached_property
    def order_share(self) -> np.ndarray:
        """Of orders, as `category_share`. Categories without a figure share what is left, as they do in
        all actions, but none has more than the least one that has a figure."""
        known = self.raw["category_share_order"]
        share = np.array([known.get(name, 0.0) for name in self.category_names])
        rest, open_ = 1 - share.sum(), share == 0
        for _ in range(len(share)):
            share[open_] = self.category_share[open_] * rest / self.category_share[open_].sum()
            over = open_ & (share > min(known.values()))
            if not over.any():
                break
            share[over], open_ = min(known.values()), open_ & ~over
            rest = 1 - share[~open_].sum()
        return share / share.sum()

    @cached_property
    def female_share(self) -> np.ndarray:
        """Of each category's actions, float64, shape (categories,); the mean where there is no figure."""
        known = self.raw["female_share_by_category"]
        share = np.array([known.get(name, np.nan) for name in self.category_names])
        there = ~np.isnan(share)
        mean = np.average(share[there], weights=self.category_share[there])
        return np.where(there, share, mean)

    @cached_property
    def sex_share(self) -> np.ndarray:
        """Of the users, in the order of SEXES."""
        return np.array([self.raw["gender_share_users"][sex] for sex in SEXES])

    def hour_share(self, kind: str) -> np.ndarray:
        """Of a day's views or orders, local time: float64, shape (24,), sum 1."""
        share = np.array(self.raw[f"hour_share_{kind}"])
        return share / share.sum()

    @cached_property
    def type_share(self) -> np.ndarray:
        """Of all rows, per day and ActionType - 1: float64, shape (days, 5), sum 1.

        Carts exist on the last days only; on some days there are almost no views. Otherwise all days are
        alike: what the figures of all days leave when those of the days with carts are taken out.
        """
        total, carts = (_by_type(self.raw[f"type_share_{name}"]) for name in ("all_days", "cart_days"))
        cart = ActionType.CART - 1
        with_carts = np.arange(self.days) >= self.day(self.raw["carts_from"])
        kept = np.ones((self.days, len(_TYPES)))
        kept[[self.day(text) for text in self.raw["almost_without_views"]], ActionType.VIEW - 1] = VIEWS_LEFT
        carts *= total[cart] / carts[cart]
        rate = (total - carts) / kept[~with_carts].sum(axis=0)
        return np.where(with_carts[:, None], carts / with_carts.sum(), rate * kept)


def _by_type(shares: dict[str, float]) -> np.ndarray:
    found = np.array([shares[kind.name.lower()] for kind in _TYPES])
    return found / found.sum()

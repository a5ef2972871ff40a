"""Finds gaps in a log: ranges of days on which an action type that otherwise occurs is missing. Pure."""

from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

import numpy as np
import polars as pl

from ecrs.domain.actions import ActionType

LOW_SHARE = 0.1
"""The type counts as missing on a day with less than this share of its usual number of actions."""
MIN_USUAL_ACTIONS = 20
"""Types with fewer actions on a usual day are not checked, because days without any are then normal."""
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Gap:
    """Days from `first_day` to `last_day`, ISO 8601, with only `actions` actions of `type` in total.

    `usual`: the median over the days that have any; `where`: "start", "end" or "middle" of the log.
    """

    type: str
    where: str
    first_day: str
    last_day: str
    actions: int
    usual: int

    def __str__(self) -> str:
        days = self.first_day if self.first_day == self.last_day else f"{self.first_day} to {self.last_day}"
        few = "almost none" if self.actions else "none"
        when = {
            "start": f"{few} before {_next_day(self.last_day)}",
            "end": f"{few} from {self.first_day} on",
            "middle": f"{few} on {days}",
        }
        return f"{self.type}: {when[self.where]} ({self.actions:,} in total; usually {self.usual:,} per day)"


def find_gaps(daily: pl.DataFrame) -> list[Gap]:
    """Return the gaps, by type, then day.

    `daily` has one row per day and type that occurs: `day`, days since 1970-01-01; `type`; `actions`, their
    number.
    """
    if not daily.height:
        return []
    begin, end = int(daily["day"].min()), int(daily["day"].max())  # type: ignore[arg-type]
    gaps = []
    for kind in sorted(daily["type"].unique()):
        own = daily.filter(pl.col("type") == kind)
        counts = np.zeros(end - begin + 1, dtype=np.int64)
        counts[own["day"].to_numpy() - begin] = own["actions"].to_numpy()
        gaps += _gaps_of_type(ActionType(kind).name.lower(), counts, begin)
    return gaps


def _gaps_of_type(name: str, counts: np.ndarray, begin: int) -> list[Gap]:
    """Return the gaps of one type. `counts` are its actions per day, from day `begin` on."""
    usual = float(np.median(counts[counts > 0]))
    if usual < MIN_USUAL_ACTIONS:
        return []
    gaps = []
    for low, days in groupby(range(len(counts)), lambda day: bool(counts[day] < LOW_SHARE * usual)):
        first, *rest = days
        last = rest[-1] if rest else first
        where = "start" if first == 0 else "end" if last == len(counts) - 1 else "middle"
        if low:
            total = int(counts[first : last + 1].sum())
            gaps.append(Gap(name, where, _iso(begin + first), _iso(begin + last), total, round(usual)))
    return gaps


def _iso(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def _next_day(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()

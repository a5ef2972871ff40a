"""User-item aggregates: one row of counts and times for each item that a user acted on.

They complement the history of the newest interactions: fifty interactions cover a week of a household's
shopping, so an item that is bought every two months is not among them. Aggregates keep one row per item,
however often it was bought.

The exponentially decayed counts are stored as of the row's own last action, so that they do not depend on
when they are read. Their value at time t is `short(t) = short · exp(-(t - last_order) / SHORT_S)`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.clock import DAY_S

SHORT_S, LONG_S = 30 * DAY_S, 120 * DAY_S
"""Time constants of the decayed purchase counts: the time in which a purchase's weight falls to 1/e."""

MAX_PRODUCTS = 1000
"""Largest number of items in a user's aggregates; those with the newest action are kept."""

AGGREGATE_COLUMNS = (
    "orders",
    "first_order",
    "last_order",
    "short",
    "long",
    "engagements",
    "last_engagement",
    "engagement",
)
"""Columns of `Aggregates.numbers`.

`orders`: number of purchases at distinct times. `short`, `long`: the same count, decayed by SHORT_S and
LONG_S, as of `last_order`. `engagements`: number of other actions. `engagement`: their sum weighted by
ENGAGEMENT_WEIGHT, decayed by SHORT_S, as of `last_engagement`. Times are Unix seconds, 0 for never.
"""
ORDERS, FIRST_ORDER, LAST_ORDER, SHORT, LONG, ENGAGEMENTS, LAST_ENGAGEMENT, ENGAGEMENT = range(
    len(AGGREGATE_COLUMNS)
)
"""Indices of AGGREGATE_COLUMNS."""

WHOLE_NUMBER_COLUMNS = ("orders", "first_order", "last_order", "engagements", "last_engagement")
"""The columns that hold whole numbers."""

TIMESTAMP_COLUMNS = ("first_order", "last_order", "last_engagement")
"""The columns that hold Unix seconds."""

ENGAGEMENT_WEIGHT = {
    ActionType.VIEW: 0.2,
    ActionType.FOLLOW: 0.5,
    ActionType.COMMENT: 0.5,
    ActionType.CART: 1.0,
}
"""Weight of an action other than a purchase, as a sign of interest."""


def _no_numbers() -> np.ndarray:
    return np.zeros((0, len(AGGREGATE_COLUMNS)))


@dataclass(frozen=True, slots=True, eq=False)
class Aggregates:
    """A user's aggregates.

    `skus` are distinct; `numbers`, float64, shape (len(skus), len(AGGREGATE_COLUMNS)), has a row for each.
    """

    skus: tuple[str, ...] = ()
    numbers: np.ndarray = field(default_factory=_no_numbers)

    def __len__(self) -> int:
        return len(self.skus)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Aggregates):
            return NotImplemented
        return self.skus == other.skus and np.array_equal(self.numbers, other.numbers)

    def __hash__(self) -> int:
        return hash(self.skus)

    def plus(self, interactions: Iterable[Interaction]) -> "Aggregates":
        """Return the aggregates with `interactions` added, newest action first, at most MAX_PRODUCTS items.

        An interaction that is older than the item's last one of its kind is treated as simultaneous with it.
        Simultaneous purchases of an item count once.
        """
        rows = dict(zip(self.skus, self.numbers.tolist(), strict=True))
        for interaction in sorted(interactions, key=lambda interaction: interaction.ts):
            row = rows.setdefault(interaction.sku, [0.0] * len(AGGREGATE_COLUMNS))
            add = _add_order if interaction.type is ActionType.ORDER else _add_engagement
            add(row, interaction)
        newest = sorted(rows.items(), key=lambda sku_row: -last_action(sku_row[1]))[:MAX_PRODUCTS]
        numbers = np.array([row for _, row in newest], dtype=np.float64).reshape(-1, len(AGGREGATE_COLUMNS))
        return Aggregates(tuple(sku for sku, _ in newest), numbers)


def decayed(numbers: np.ndarray, now: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns short, long and engagement, decayed to `now`: float64, each of shape (rows,)."""
    since_order = np.maximum(now - numbers[:, LAST_ORDER], 0)
    since_engagement = np.maximum(now - numbers[:, LAST_ENGAGEMENT], 0)
    short = numbers[:, SHORT] * np.exp(-since_order / SHORT_S)
    long = numbers[:, LONG] * np.exp(-since_order / LONG_S)
    return short, long, numbers[:, ENGAGEMENT] * np.exp(-since_engagement / SHORT_S)


def last_action(row: list[float]) -> float:
    """Return the time of the last action in a row of `Aggregates.numbers`, in Unix seconds."""
    return max(row[LAST_ORDER], row[LAST_ENGAGEMENT])


def _add_order(row: list[float], interaction: Interaction) -> None:
    ts = max(float(interaction.ts), row[LAST_ORDER])
    if row[ORDERS] and ts == row[LAST_ORDER]:
        return  # bought twice in the same basket
    since = ts - row[LAST_ORDER]
    row[FIRST_ORDER] = row[FIRST_ORDER] or ts
    row[SHORT] = 1 + row[SHORT] * float(np.exp(-since / SHORT_S))
    row[LONG] = 1 + row[LONG] * float(np.exp(-since / LONG_S))
    row[ORDERS] += 1
    row[LAST_ORDER] = ts


def _add_engagement(row: list[float], interaction: Interaction) -> None:
    ts = max(float(interaction.ts), row[LAST_ENGAGEMENT])
    decayed = row[ENGAGEMENT] * float(np.exp(-(ts - row[LAST_ENGAGEMENT]) / SHORT_S))
    row[ENGAGEMENT] = decayed + ENGAGEMENT_WEIGHT.get(interaction.type, 0.2)
    row[ENGAGEMENTS] += 1
    row[LAST_ENGAGEMENT] = ts

"""What a user did to each product, in total: the long memory beside the newest interactions.

Fifty interactions are a week of a household's shopping; a product bought every two months is not
among them. Aggregates keep one row a product, however often it was bought. The decayed counts are as of
the row's own last time, so that they do not depend on when they are read:
`short(t) = short · exp(-(t - last_order) / SHORT_S)`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.clock import DAY_S

SHORT_S, LONG_S = 30 * DAY_S, 120 * DAY_S
"""Time in which a purchase's weight falls to 1/e, in the short and the long count."""

MAX_PRODUCTS = 1000
"""Products of a user that are kept and sent, those of the newest action."""

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

`orders`: purchases at distinct times; `short`, `long`: their decayed counts as of `last_order`;
`engagements`: other actions; `engagement`: their count by ENGAGEMENT_WEIGHT, decayed by SHORT_S, as of
`last_engagement`. Times are Unix seconds, 0 for never.
"""
ORDERS, FIRST_ORDER, LAST_ORDER, SHORT, LONG, ENGAGEMENTS, LAST_ENGAGEMENT, ENGAGEMENT = range(
    len(AGGREGATE_COLUMNS)
)

WHOLE_NUMBER_COLUMNS = ("orders", "first_order", "last_order", "engagements", "last_engagement")
"""Those of AGGREGATE_COLUMNS that are whole numbers."""

TIMESTAMP_COLUMNS = ("first_order", "last_order", "last_engagement")
"""Those of AGGREGATE_COLUMNS that are moments."""

ENGAGEMENT_WEIGHT = {
    ActionType.VIEW: 0.2,
    ActionType.FOLLOW: 0.5,
    ActionType.COMMENT: 0.5,
    ActionType.CART: 1.0,
}
"""How much an action that is no purchase says of interest."""


def _no_numbers() -> np.ndarray:
    return np.zeros((0, len(AGGREGATE_COLUMNS)))


@dataclass(frozen=True, slots=True, eq=False)
class Aggregates:
    """`skus`, distinct; `numbers`, float64, shape (len(skus), len(AGGREGATE_COLUMNS))."""

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
        """With interactions that came after, or, where they did not, as if they came at the last time."""
        rows = dict(zip(self.skus, self.numbers.tolist(), strict=True))
        for interaction in sorted(interactions, key=lambda one: one.ts):
            row = rows.setdefault(interaction.sku, [0.0] * len(AGGREGATE_COLUMNS))
            (_order if interaction.type is ActionType.ORDER else _engagement)(row, interaction)
        newest = sorted(rows.items(), key=lambda sku_row: -last_action(sku_row[1]))[:MAX_PRODUCTS]
        numbers = np.array([row for _, row in newest], dtype=np.float64).reshape(-1, len(AGGREGATE_COLUMNS))
        return Aggregates(tuple(sku for sku, _ in newest), numbers)


def decayed(numbers: np.ndarray, now: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns short, long and engagement, decayed to `now`: float64, each of shape (rows,)."""
    ordered = np.maximum(now - numbers[:, LAST_ORDER], 0)
    engaged = np.maximum(now - numbers[:, LAST_ENGAGEMENT], 0)
    short = numbers[:, SHORT] * np.exp(-ordered / SHORT_S)
    long = numbers[:, LONG] * np.exp(-ordered / LONG_S)
    return short, long, numbers[:, ENGAGEMENT] * np.exp(-engaged / SHORT_S)


def last_action(row: list[float]) -> float:
    return max(row[LAST_ORDER], row[LAST_ENGAGEMENT])


def _order(row: list[float], interaction: Interaction) -> None:
    ts = max(float(interaction.ts), row[LAST_ORDER])
    if row[ORDERS] and ts == row[LAST_ORDER]:
        return  # the same basket
    since = ts - row[LAST_ORDER]
    row[FIRST_ORDER] = row[FIRST_ORDER] or ts
    row[SHORT] = 1 + row[SHORT] * float(np.exp(-since / SHORT_S))
    row[LONG] = 1 + row[LONG] * float(np.exp(-since / LONG_S))
    row[ORDERS] += 1
    row[LAST_ORDER] = ts


def _engagement(row: list[float], interaction: Interaction) -> None:
    ts = max(float(interaction.ts), row[LAST_ENGAGEMENT])
    decayed = row[ENGAGEMENT] * float(np.exp(-(ts - row[LAST_ENGAGEMENT]) / SHORT_S))
    row[ENGAGEMENT] = decayed + ENGAGEMENT_WEIGHT.get(interaction.type, 0.2)
    row[ENGAGEMENTS] += 1
    row[LAST_ENGAGEMENT] = ts

"""Generates synthetic data shaped like JData 2019: of any size, reproducible by a seed, in bounded memory.

Purchases are drawn from the model in `planted`. Users act in sessions, each within one hour. Sessions and
orders are drawn for all days together, the other actions day by day. docs/reference/data.md describes the
data.

In an evaluation period of the split, repeat purchases repeat only purchases made before that period.
Therefore all purchases of a user in the period are independent draws from one distribution, and the best
possible ranking for the period is known exactly.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ecrs.domain.actions import ActionType
from ecrs.domain.clock import DAY_S
from ecrs_models.data.dataset import (
    ACTION_SCHEMA,
    ACTIONS,
    PRODUCTS,
    USERS,
    replacing,
    write_about,
    write_table,
)
from ecrs_models.data.split import Split
from ecrs_models.errors import DataError
from ecrs_models.prepare.actions import Parts
from ecrs_models.prepare.jdata import ZONE
from ecrs_models.synthetic.figures import Figures
from ecrs_models.synthetic.planted import (
    AFFINITY,
    LOYALTY,
    SLOT_WEIGHTS,
    SLOTS,
    TRUTH,
    People,
    PlantedCatalogue,
    Tastes,
    draw_category,
    write_truth,
)

HOUR_S = 3600
ROWS_PER_SESSION = 12
"""Mean number of actions in a session."""
SESSION_SHAPE = 0.6
"""Shape of the gamma distribution of the number of actions in a session."""
GAP_S = 15
"""Time between two actions of a session; less in long sessions, which must end within the hour."""
LINKED_TO_ORDER = {ActionType.VIEW: 0.12, ActionType.FOLLOW: 0.4, ActionType.CART: 0.5}
"""Probability, per order in the session, that an action precedes an order and is of the ordered product."""
LINKED = 0.21
"""Share of all actions that are of an ordered product: a measured value, which `Tastes.of` needs."""
MOST_ORDERS = 0.6
"""Largest expected share of orders in a session's actions."""

VIEW, ORDER, COMMENT = (int(kind) for kind in (ActionType.VIEW, ActionType.ORDER, ActionType.COMMENT))


@dataclass(frozen=True)
class World:
    """The part of the generative model that does not change over time."""

    figures: Figures
    tastes: Tastes
    catalogue: PlantedCatalogue
    people: People

    @classmethod
    def plant(cls, users: int, products: int, seed: int) -> "World":
        """Draw a catalogue and users with their preferences."""
        figures = Figures.load()
        tastes = Tastes.of(figures, LINKED)
        catalogue = PlantedCatalogue.plant(np.random.default_rng([seed, 1]), products, figures)
        people = People.plant(np.random.default_rng([seed, 2]), users, figures, tastes, catalogue)
        return cls(figures, tastes, catalogue, people)


@dataclass(frozen=True)
class Sessions:
    """The sessions, sorted by time.

    `user`: row of the user; `day`, `hour`: when it takes place, in local time; `rows`: number of its actions;
    integers, shape (sessions,).
    """

    user: np.ndarray
    day: np.ndarray
    hour: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Orders:
    """The orders of all sessions.

    `item`, int64, shape (orders,): rows of the catalogue, session by session; session s has the orders
    [start[s], start[s + 1]). `own`, int64, shape (orders,): the numbers of the orders sorted by user, then
    time. The user of session s made the orders own[first[s]:until[s]] before that session.
    """

    item: np.ndarray
    start: np.ndarray
    own: np.ndarray
    first: np.ndarray
    until: np.ndarray


def generate_data(out: Path, *, users: int, products: int, actions: int, seed: int) -> dict[str, int]:
    """Write a synthetic data set of the given size, and its ground truth, to `out`. Returns its counts.

    The same sizes and seed give the same bytes. Raises DataError if a size is too small.
    """
    _check(users, products, actions)
    world = World.plant(users, products, seed)
    first = world.figures.first_second
    split = Split.suggest(first, first + world.figures.days * DAY_S - 1)
    periods = [(start - first) // DAY_S for start in (split.valid_from, split.test_from)]
    sessions = plant_sessions(np.random.default_rng([seed, 3]), world, actions)
    orders = plant_orders(np.random.default_rng([seed, 4]), world, sessions, periods)
    with replacing(out) as draft:
        write_table(world.people.table(np.random.default_rng([seed, 5])), draft / USERS)
        write_table(world.catalogue.table(), draft / PRODUCTS)
        write_truth(draft, world.catalogue, world.people)
        parts = Parts(draft / "parts")
        for day in range(world.figures.days):
            parts.write(day_of_actions(np.random.default_rng([seed, 6, day]), world, sessions, orders, day))
        counts = {"users": users, "products": products, "actions": parts.join(draft / ACTIONS)[0]}
        _write_metadata(draft, world, seed, split, counts, out.name)
    return counts


def plant_sessions(rng: np.random.Generator, world: World, actions: int) -> Sessions:
    """Draw sessions that have `actions` actions in total. Active users have more sessions than others.

    Every user gets at least one session; sessions of one user in the same hour are merged, and those without
    actions dropped.
    """
    people, figures = world.people, world.figures
    users = len(people.sex)
    extra = max(0.0, actions / users / ROWS_PER_SESSION - 1)
    count = 1 + rng.poisson(extra * people.activity)
    user = np.repeat(np.arange(users, dtype=np.int32), count)
    day = rng.integers(0, figures.days, len(user), dtype=np.int16)
    hour = rng.choice(24, len(user), p=figures.hour_share("view")).astype(np.int8)
    order = np.lexsort((user, hour, day))
    user, day, hour = user[order], day[order], hour[order]
    first = np.r_[True, (np.diff(user) != 0) | (np.diff(hour) != 0) | (np.diff(day) != 0)]
    user, day, hour = user[first], day[first], hour[first]
    by_sex = world.tastes.rows / world.figures.sex_share
    by_day = figures.type_share.sum(axis=1)
    weight = rng.gamma(SESSION_SHAPE, size=len(user)) * by_sex[people.sex[user]] * by_day[day]
    rows = _divided(rng.permutation(len(user)), weight, actions)
    kept = rows > 0
    return Sessions(user[kept], day[kept], hour[kept], rows[kept])


def plant_orders(rng: np.random.Generator, world: World, sessions: Sessions, periods: list[int]) -> Orders:
    """Draw the number of orders of each session, and their products.

    `periods` holds the first days of the two evaluation periods.
    """
    people, figures = world.people, world.figures
    share = figures.type_share[:, ORDER - 1] / figures.type_share.sum(axis=1)
    by_hour = figures.hour_share("order") / figures.hour_share("view")
    sources, rate = world.tastes.slot_probabilities(people.sex, people.slots)
    probability = share[sessions.day] * by_hour[sessions.hour] * rate[sessions.user]
    count = rng.binomial(sessions.rows, np.minimum(probability, MOST_ORDERS))
    session = np.repeat(np.arange(len(sessions)), count)
    user = sessions.user[session]

    own = np.argsort(user, kind="stable")
    start = np.searchsorted(user[own], np.arange(len(people.sex) + 1))
    before = _earlier(sessions, count)
    period = np.searchsorted(periods, sessions.day[session[own]], side="right")
    repeatable = _repeatable(user[own], before[session[own]], period)
    item = np.empty(len(user), dtype=np.int64)
    item[own] = draw_orders(rng, world, user[own], start[user[own]], repeatable, sources)
    first = start[sessions.user]
    return Orders(item, np.append(0, np.cumsum(count)), own, first, first + before)


def draw_orders(
    rng: np.random.Generator,
    world: World,
    user: np.ndarray,
    first: np.ndarray,
    repeatable: np.ndarray,
    sources: np.ndarray,
) -> np.ndarray:
    """Draw the products of orders that are sorted by user, then time: rows of the catalogue, shape (orders,).

    `user`, shape (orders,): the user of each order. `first`, `repeatable`, shape (orders,): an order may
    repeat one of the orders [first, first + repeatable). `sources`, shape (users, SLOTS + 1): where a user's
    purchases by preference come from, as returned by `Tastes.slot_probabilities`.
    """
    cumulative = np.cumsum(sources, axis=1)
    slot = (rng.random(len(user))[:, None] >= cumulative[user, :-1]).sum(axis=1)
    item = draw_by_taste(rng, world, user, slot, world.tastes.ordered())
    repeats = (rng.random(len(user)) < world.people.repeat[user]) & (repeatable > 0)
    original = np.where(
        repeats, first + (rng.random(len(user)) * repeatable).astype(np.int64), np.arange(len(user))
    )
    while not np.array_equal(original, original[original]):  # resolve repeats of repeats
        original = original[original]
    return item[original]


def draw_by_taste(
    rng: np.random.Generator, world: World, user: np.ndarray, slot: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """Draw a product for each of `user`, shape (N,): rows of the catalogue, shape (N,).

    `slot`, shape (N,), is the number of the preferred category to draw from, or SLOTS for any category; then
    the category is drawn from `shares`, shape (3, categories), the distributions by sex.
    """
    people, catalogue = world.people, world.catalogue
    preferred = np.minimum(slot, SLOTS - 1)
    category = np.where(
        slot < SLOTS, people.slots[user, preferred], draw_category(rng, shares, people.sex[user])
    )
    low, high = (bound[category] for bound in catalogue.ranges(catalogue.category, shares.shape[1]))
    loyal = (slot < SLOTS) & (rng.random(len(user)) < LOYALTY)
    low = np.where(loyal, people.low[user, preferred], low)
    high = np.where(loyal, people.high[user, preferred], high)
    return catalogue.draw(rng, low, high)


def day_of_actions(
    rng: np.random.Generator, world: World, sessions: Sessions, orders: Orders, day: int
) -> pl.DataFrame:
    """Draw all actions of a day. Returns them sorted by time, with ACTION_SCHEMA."""
    begin, end = np.searchsorted(sessions.day, [day, day + 1])
    rows = sessions.rows[begin:end]
    session = np.repeat(np.arange(begin, end), rows)
    order_count = np.diff(orders.start)[session]
    number = np.arange(len(session)) - np.repeat(np.cumsum(rows) - rows, rows)
    kind = _types(rng, world.figures.type_share[day], number < order_count)
    item, position = _products(rng, world, sessions, orders, session, kind, number)

    order = np.lexsort((position, session))
    item, kind = item[order], kind[order]  # session and number are the same in this order
    gap = np.minimum(GAP_S, (HOUR_S - 1) / np.maximum(rows, 1))
    start = rng.random(len(rows)) * (HOUR_S - gap * rows)
    ts = np.repeat(sessions.hour[begin:end] * float(HOUR_S) + start, rows) + number * np.repeat(gap, rows)
    ts = ts.astype(np.int64) + world.figures.first_second + day * DAY_S
    by_time = np.argsort(ts, kind="stable")
    columns = (sessions.user[session] + 1, world.catalogue.sku[item], ts, kind)
    table = {name: column[by_time] for name, column in zip(ACTION_SCHEMA, columns, strict=True)}
    return pl.DataFrame(table).cast(ACTION_SCHEMA)  # type: ignore[arg-type]


def _products(
    rng: np.random.Generator,
    world: World,
    sessions: Sessions,
    orders: Orders,
    session: np.ndarray,
    kind: np.ndarray,
    number: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the product of each action of a day, and its relative position in its session, from 0 to 1.

    By default, products are drawn by preference. Orders have the products of `orders`; some actions before
    an order are of the ordered product, by LINKED_TO_ORDER; comments are about the user's orders of earlier
    sessions.
    """
    size, user = len(session), sessions.user[session]
    slot = rng.choice(SLOTS + 1, size, p=(*(AFFINITY * np.array(SLOT_WEIGHTS)), 1 - AFFINITY))
    item = draw_by_taste(rng, world, user, slot, world.tastes.seen)
    position = rng.random(size)

    is_order = kind == ORDER
    item[is_order] = orders.item[orders.start[session[is_order]] + number[is_order]]
    position[is_order] = np.sqrt(position[is_order])

    count = np.diff(orders.start)[session]
    probability = np.zeros(len(ActionType))
    for action_type, value in LINKED_TO_ORDER.items():
        probability[action_type] = value
    linked = np.flatnonzero(
        (count > 0) & (rng.random(size) < np.minimum(1, probability[kind] * np.maximum(1, count)))
    )
    chosen = (rng.random(len(linked)) * count[linked]).astype(np.int64)
    start = np.searchsorted(session, session[linked])  # the orders of a session are its first rows
    item[linked], position[linked] = item[start + chosen], position[linked] * position[start + chosen]

    until, first = orders.until[session], orders.first[session]
    comments = np.flatnonzero((kind == COMMENT) & (until > first))
    earlier = first[comments] + (rng.random(len(comments)) * (until - first)[comments]).astype(np.int64)
    item[comments] = orders.item[orders.own[earlier]]
    return item, position


def _types(rng: np.random.Generator, share: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Return the type of each action, int8: ORDER where `ordered`, else another one drawn by its `share`."""
    others = np.delete(np.arange(1, len(share) + 1), ORDER - 1)
    probability = share[others - 1] / share[others - 1].sum()
    return np.where(ordered, ORDER, rng.choice(others, len(ordered), p=probability)).astype(np.int8)


def _repeatable(user: np.ndarray, before: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Return how many of the user's orders, from the first one on, each order may repeat: shape (orders,).

    These are the orders of earlier sessions, `before`, or, in an evaluation period, the orders before that
    period. `period` is 0 before the evaluation periods, then 1 and 2. All arguments have the shape
    (orders,).
    """
    for number in (1, 2):
        earlier = np.bincount(user[period < number], minlength=user.max(initial=0) + 1)[user]
        before = np.where(period == number, earlier, before)
    return before


def _earlier(sessions: Sessions, count: np.ndarray) -> np.ndarray:
    """Return how many orders the user made before each session. `count` holds those in each session."""
    by_user = np.argsort(sessions.user, kind="stable")
    total = np.cumsum(count[by_user]) - count[by_user]
    first = np.searchsorted(sessions.user[by_user], sessions.user[by_user])
    earlier = np.empty_like(total)
    earlier[by_user] = total - total[first]
    return earlier


def _divided(order: np.ndarray, weight: np.ndarray, total: int) -> np.ndarray:
    """Divide `total` by `weight`: int32. Rounding proceeds along `order`, so that the sum is exact."""
    cumulative = np.cumsum(weight[order])
    bounds = np.floor(cumulative / cumulative[-1] * total + 0.5)
    rows = np.empty(len(weight), dtype=np.int32)
    rows[order] = np.diff(bounds, prepend=0)
    return rows


def _check(users: int, products: int, actions: int) -> None:
    categories = Figures.load().raw["categories"]
    if users < 1 or actions < 1 or products < categories:
        raise DataError(
            f"at least 1 user, 1 action, and a product for each of {categories} categories are required"
        )


def _write_metadata(
    draft: Path, world: World, seed: int, split: Split, counts: dict[str, int], name: str
) -> None:
    truth = {
        "seed": seed, "affinity": AFFINITY, "loyalty": LOYALTY, "slot_weights": SLOT_WEIGHTS,
        "ordered": world.tastes.ordered().tolist(), "order_rate": world.tastes.order_rate().tolist(),
        "conversion": world.tastes.conversion.tolist(),
    }  # fmt: skip
    (draft / TRUTH).write_text(json.dumps(truth) + "\n", encoding="utf-8")
    names = {str(number): text for number, text in enumerate(world.figures.category_names, 1)}
    (draft / "codes.json").write_text(json.dumps({"category": names}, indent=1) + "\n", encoding="utf-8")
    source = f"generated in the shape of JData 2019, seed {seed}"
    write_about(draft, name=name, source=source, split=split, counts=counts, zone=ZONE)

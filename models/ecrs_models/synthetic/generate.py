"""Data of JData's shape with planted tastes: of any size, by a seed, in bounded memory.

Users come in sessions, which lie within an hour; sessions and orders are made for all days at once,
the other actions day by day. What is planted is told in docs/reference/data.md.

What a user bought before a period of the split is all that is repeated in that period: so each
purchase of it has the same distribution, and the best ranking for it is exactly known.
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
SESSION_SHAPE = 0.6
"""Of the gamma distribution of a session's length."""
GAP_S = 15
"""Between two actions, less in a long session."""
LINKED_TO_ORDER = {ActionType.VIEW: 0.12, ActionType.FOLLOW: 0.4, ActionType.CART: 0.5}
"""How probably an action in a session with an order is of a product ordered in it, before the order."""
LINKED = 0.21
"""The share of all actions whose product is an order's, measured; planting the categories needs it."""
MOST_ORDERS = 0.6
"""Of a session's actions."""

VIEW, ORDER, COMMENT = (int(kind) for kind in (ActionType.VIEW, ActionType.ORDER, ActionType.COMMENT))


@dataclass(frozen=True)
class World:
    """What does not change with time."""

    figures: Figures
    tastes: Tastes
    catalogue: PlantedCatalogue
    people: People

    @classmethod
    def plant(cls, users: int, products: int, seed: int) -> "World":
        figures = Figures.load()
        tastes = Tastes.of(figures, LINKED)
        catalogue = PlantedCatalogue.plant(np.random.default_rng([seed, 1]), products, figures)
        people = People.plant(np.random.default_rng([seed, 2]), users, figures, tastes, catalogue)
        return cls(figures, tastes, catalogue, people)


@dataclass(frozen=True)
class Sessions:
    """In the order of time: `user`, `day`, `hour`, `rows`: int, shape (sessions,)."""

    user: np.ndarray
    day: np.ndarray
    hour: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Orders:
    """`item`, shape (orders,): rows of the catalogue, session by session.

    Session s has the orders [start[s], start[s + 1]). `own`: the orders by user, then time; those that
    the session's user made before it are own[first[s]:until[s]].
    """

    item: np.ndarray
    start: np.ndarray
    own: np.ndarray
    first: np.ndarray
    until: np.ndarray


def generate_data(out: Path, *, users: int, products: int, actions: int, seed: int) -> dict[str, int]:
    """Write a data set of these numbers of users, products and actions to `out`, and its truth; the counts.

    The same numbers and seed give the same bytes. DataError if a number is too small.
    """
    _check(users, products, actions)
    world = World.plant(users, products, seed)
    first = world.figures.first_second
    split = Split.suggest(first, first + world.figures.days * DAY_S - 1)
    periods = [(moment - first) // DAY_S for moment in (split.valid_from, split.test_from)]
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
        _write_texts(draft, world, seed, split, counts, out.name)
    return counts


def plant_sessions(rng: np.random.Generator, world: World, actions: int) -> Sessions:
    """Sessions that have `actions` rows together: every user has one at least, active ones many."""
    people, figures = world.people, world.figures
    users = len(people.sex)
    more = max(0.0, actions / users / ROWS_PER_SESSION - 1)
    count = 1 + rng.poisson(more * people.activity)
    user = np.repeat(np.arange(users, dtype=np.int32), count)
    day = rng.integers(0, figures.days, len(user), dtype=np.int16)
    hour = rng.choice(24, len(user), p=figures.hour_share("view")).astype(np.int8)
    order = np.lexsort((user, hour, day))
    user, day, hour = user[order], day[order], hour[order]
    other = np.r_[True, (np.diff(user) != 0) | (np.diff(hour) != 0) | (np.diff(day) != 0)]
    user, day, hour = user[other], day[other], hour[other]
    of_sex = world.tastes.rows / world.figures.sex_share
    of_day = figures.type_share.sum(axis=1)
    weight = rng.gamma(SESSION_SHAPE, size=len(user)) * of_sex[people.sex[user]] * of_day[day]
    rows = _divided(rng.permutation(len(user)), weight, actions)
    kept = rows > 0
    return Sessions(user[kept], day[kept], hour[kept], rows[kept])


def plant_orders(rng: np.random.Generator, world: World, sessions: Sessions, periods: list[int]) -> Orders:
    """How many orders each session has, and of what; `periods`: the first days of the split's periods."""
    people, figures = world.people, world.figures
    share = figures.type_share[:, ORDER - 1] / figures.type_share.sum(axis=1)
    by_hour = figures.hour_share("order") / figures.hour_share("view")
    sources, rate = world.tastes.slot_probabilities(people.sex, people.slots)
    chance = share[sessions.day] * by_hour[sessions.hour] * rate[sessions.user]
    count = rng.binomial(sessions.rows, np.minimum(chance, MOST_ORDERS))
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
    """The products of orders by user, then time: rows of the catalogue, shape (orders,).

    `first`, `repeatable`, shape (orders,): an order may repeat one of [first, first + repeatable).
    `sources`, shape (users, SLOTS + 1): where a purchase by taste comes from.
    """
    until = np.cumsum(sources, axis=1)
    slot = (rng.random(len(user))[:, None] >= until[user, :-1]).sum(axis=1)
    item = draw_by_taste(rng, world, user, slot, world.tastes.ordered())
    repeats = (rng.random(len(user)) < world.people.repeat[user]) & (repeatable > 0)
    of = np.where(
        repeats, first + (rng.random(len(user)) * repeatable).astype(np.int64), np.arange(len(user))
    )
    while not np.array_equal(of, of[of]):  # a repeat of a repeat …
        of = of[of]
    return item[of]


def draw_by_taste(
    rng: np.random.Generator, world: World, user: np.ndarray, slot: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """A product for each of `user`, from the preferred category `slot`, or, where that is SLOTS, from any.

    `shares`, shape (3, categories): how a sex likes them. Rows of the catalogue, shape (N,).
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
    """All actions of a day in the order of time, with ACTION_SCHEMA."""
    begin, end = np.searchsorted(sessions.day, [day, day + 1])
    rows = sessions.rows[begin:end]
    session = np.repeat(np.arange(begin, end), rows)
    ordered = np.diff(orders.start)[session]
    number = np.arange(len(session)) - np.repeat(np.cumsum(rows) - rows, rows)
    kind = _types(rng, world.figures.type_share[day], number < ordered)
    item, moment = _products(rng, world, sessions, orders, session, kind, number)

    order = np.lexsort((moment, session))
    item, kind = item[order], kind[order]  # session and number stay: sessions are whole
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
    """The product of each action of a day, and when in its session it comes, from 0 to 1."""
    size, user = len(session), sessions.user[session]
    by_taste = rng.choice(SLOTS + 1, size, p=(*(AFFINITY * np.array(SLOT_WEIGHTS)), 1 - AFFINITY))
    item = draw_by_taste(rng, world, user, by_taste, world.tastes.seen)
    moment = rng.random(size)

    mine = kind == ORDER
    item[mine] = orders.item[orders.start[session[mine]] + number[mine]]
    moment[mine] = np.sqrt(moment[mine])

    count = np.diff(orders.start)[session]
    chance = np.zeros(len(ActionType))
    for which, probability in LINKED_TO_ORDER.items():
        chance[which] = probability
    linked = np.flatnonzero(
        (count > 0) & (rng.random(size) < np.minimum(1, chance[kind] * np.maximum(1, count)))
    )
    chosen = (rng.random(len(linked)) * count[linked]).astype(np.int64)
    start = np.searchsorted(session, session[linked])  # a session's orders are its first rows
    item[linked], moment[linked] = item[start + chosen], moment[linked] * moment[start + chosen]

    until, first = orders.until[session], orders.first[session]
    told = np.flatnonzero((kind == COMMENT) & (until > first))
    earlier = first[told] + (rng.random(len(told)) * (until - first)[told]).astype(np.int64)
    item[told] = orders.item[orders.own[earlier]]
    return item, moment


def _types(rng: np.random.Generator, share: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """A type for each action, int8: ORDER where `ordered`, else another, by their `share` of the day."""
    others = np.delete(np.arange(1, len(share) + 1), ORDER - 1)
    chance = share[others - 1] / share[others - 1].sum()
    return np.where(ordered, ORDER, rng.choice(others, len(ordered), p=chance)).astype(np.int8)


def _repeatable(user: np.ndarray, before: np.ndarray, period: np.ndarray) -> np.ndarray:
    """How many of the user's first orders an order may repeat.

    `before`, those of earlier sessions, or, in a period of the split, those before it. `period`: 0
    before the split's periods, then 1 and 2. All have the shape (orders,).
    """
    for number in (1, 2):
        earlier = np.bincount(user[period < number], minlength=user.max(initial=0) + 1)[user]
        before = np.where(period == number, earlier, before)
    return before


def _earlier(sessions: Sessions, count: np.ndarray) -> np.ndarray:
    """How many orders the user has before each session; `count`: those in it."""
    by_user = np.argsort(sessions.user, kind="stable")
    total = np.cumsum(count[by_user]) - count[by_user]
    first = np.searchsorted(sessions.user[by_user], sessions.user[by_user])
    earlier = np.empty_like(total)
    earlier[by_user] = total - total[first]
    return earlier


def _divided(order: np.ndarray, weight: np.ndarray, total: int) -> np.ndarray:
    """`total` divided by `weight`, rounded so that the sum is exact, along `order`: int32."""
    until = np.cumsum(weight[order])
    bounds = np.floor(until / until[-1] * total + 0.5)
    rows = np.empty(len(weight), dtype=np.int32)
    rows[order] = np.diff(bounds, prepend=0)
    return rows


def _check(users: int, products: int, actions: int) -> None:
    categories = Figures.load().raw["categories"]
    if users < 1 or actions < 1 or products < categories:
        raise DataError(
            f"at least 1 user, 1 action and a product for each of {categories} categories are needed"
        )


def _write_texts(
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

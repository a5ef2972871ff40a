"""Protobuf messages ⇄ the domain's users and items: the one place that knows both names."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ecrs.actions import ActionType, Interaction
from ecrs.contract.item_info_pb2 import ItemInfo, SourceTable
from ecrs.contract.user_info_pb2 import Interaction as InteractionInfo
from ecrs.contract.user_info_pb2 import Totals as TotalsInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain import (
    HISTORY_LENGTH,
    LAST_TS,
    NEW_USER_IDS,
    SKU_BYTES,
    UNKNOWN,
    Item,
    User,
    has_control,
    is_long,
    sku_fault,
)
from ecrs.kit.errors import BadRequest, quoted
from ecrs.sources import Sources
from ecrs.totals import MAX_PRODUCTS, TIMES, TOTALS, Totals

_ROW = np.dtype(("<f8", len(TOTALS)))
"""A product's row of totals on the wire."""

_ACTIONS = {int(action): action for action in ActionType}

MAX_BATCH = 1000
"""Products that one call may put, remove or mark."""

USER_ID_CHARS = 256

_MOST = np.array([LAST_TS if name in TIMES else 2**32 - 1 for name in TOTALS], dtype=np.float64)
"""Of each of TOTALS; decayed counts are counts as well."""


def to_user(info: UserInfo) -> User:
    """BadRequest names what in the history or the totals cannot be."""
    history = info.history[:HISTORY_LENGTH]
    for place, one in enumerate(history):
        if not 0 <= one.ts <= LAST_TS:
            raise BadRequest(f"user_info.history[{place}].ts: {_no_moment(one.ts)}")
    return User(
        id="" if info.user_id in NEW_USER_IDS else info.user_id,
        age=info.age or UNKNOWN,
        sex=info.sex or UNKNOWN,
        city_level=info.city_level or UNKNOWN,
        province=info.province or UNKNOWN,
        city=info.city or UNKNOWN,
        county=info.country or UNKNOWN,
        totals=to_totals(info.totals),
        history=tuple(Interaction(i.sku_id, i.ts, _action(i.type)) for i in history),
    )


def from_user(user: User) -> UserInfo:
    return UserInfo(
        user_id=user.id,
        age=user.age,
        sex=user.sex,
        city_level=user.city_level,
        province=user.province,
        city=user.city,
        country=user.county,
        totals=from_totals(user.totals),
        history=[InteractionInfo(sku_id=i.sku, ts=i.ts, type=i.type.name) for i in user.history],
    )


def to_totals(info: TotalsInfo) -> Totals:
    """The first MAX_PRODUCTS; BadRequest if there are not as many numbers as there should be, a product is
    there twice, or a number is NaN, negative or larger than counts and times can be."""
    skus = tuple(info.sku_ids)
    if len(info.numbers) != len(skus) * _ROW.itemsize:
        raise BadRequest(
            f"user_info.totals.numbers: {len(info.numbers)} bytes, expected {_ROW.itemsize} a product, "
            f"{len(skus) * _ROW.itemsize}"
        )
    if not skus:
        return Totals()
    if len(set(skus)) < len(skus):
        twice = next(sku for place, sku in enumerate(skus) if sku in skus[:place])
        raise BadRequest(f"user_info.totals.sku_ids: {quoted(twice)} is there twice")
    numbers = np.frombuffer(info.numbers, dtype="<f8").reshape(-1, len(TOTALS))
    possible = (numbers >= 0) & (numbers <= _MOST)  # NaN is neither
    if not possible.all():
        row, column = np.argwhere(~possible)[0].tolist()
        raise BadRequest(
            f"user_info.totals.numbers: {TOTALS[column]} of {quoted(skus[row])}: "
            f"expected 0 to {_MOST[column]:.0f}, got {numbers[row, column]:.16g}"
        )
    return Totals(skus[:MAX_PRODUCTS], numbers[:MAX_PRODUCTS])


def from_totals(totals: Totals) -> TotalsInfo:
    return TotalsInfo(sku_ids=totals.skus, numbers=totals.numbers.astype("<f8").tobytes())


def to_sources(table: SourceTable, n: int) -> Sources:
    """Of `n` candidates; BadRequest if there are not as many values as there should be."""
    channels = tuple(table.channels)
    wanted = n * len(channels)
    for name, values in (("positions", table.positions), ("scores", table.scores)):
        if len(values) != wanted:
            raise BadRequest(
                f"sources.{name}: {len(values)} values, expected {n} items by {len(channels)} channels"
            )
    positions = np.fromiter(table.positions, np.int64, wanted)
    scores = np.fromiter(table.scores, np.float32, wanted)
    return Sources(channels, positions.reshape(n, -1), scores.reshape(n, -1)) if wanted else Sources.silent(n)


def from_sources(sources: Sources) -> SourceTable:
    return SourceTable(
        channels=sources.channels,
        positions=sources.positions.ravel().tolist(),
        scores=sources.scores.ravel().tolist(),
    )


def describes_user(info: UserInfo) -> bool:
    """Whether a request's user_info says anything about who asks."""
    return bool(
        info.age
        or info.sex
        or info.city_level
        or info.province
        or info.city
        or info.country
        or info.history
        or info.totals.sku_ids
    )


def to_item(info: ItemInfo) -> Item:
    return Item(
        info.sku_id,
        info.brand or UNKNOWN,
        info.shopid or UNKNOWN,
        info.cate or UNKNOWN,
        tuple(info.statistics),
        info.out_of_stock,
    )


def from_item(item: Item) -> ItemInfo:
    return ItemInfo(
        sku_id=item.sku,
        brand=item.brand,
        shopid=item.shop,
        cate=item.category,
        statistics=item.statistics,
        out_of_stock=item.out_of_stock,
    )


def to_new_items(infos: Sequence[ItemInfo]) -> list[Item]:
    """Products to take in, without statistics, which are learned; BadRequest names what is wrong."""
    check_batch("item_infos", [info.sku_id for info in infos])
    for place, info in enumerate(infos):
        for name in ("brand", "shopid", "cate"):
            value = getattr(info, name)
            if fault := _value_fault(value):
                raise BadRequest(f"item_infos[{place}]: sku {info.sku_id!r}: {name} {fault}")
    return [replace(to_item(info), statistics=()) for info in infos]


def _value_fault(value: str) -> str | None:
    if is_long(value):
        return f"is longer than {SKU_BYTES} bytes"
    return "holds a control character" if has_control(value) else None


def check_now(now: int) -> None:
    """BadRequest unless a request's `now` is a moment, or 0 for the clock's."""
    if not 0 <= now <= LAST_TS:
        raise BadRequest(f"now: {_no_moment(now)}")


def check_user_id(user_id: str) -> None:
    """BadRequest for what is too long to be looked up and named in a reply."""
    if len(user_id) > USER_ID_CHARS:
        raise BadRequest(f"user_id: at most {USER_ID_CHARS} characters, got {len(user_id)}")


def check_skus(field: str, skus: Sequence[str]) -> None:
    """As `check_user_id`, naming the place in `field`."""
    if max(map(len, skus)) > SKU_BYTES:
        place = next(place for place, sku in enumerate(skus) if len(sku) > SKU_BYTES)
        raise BadRequest(f"{field}[{place}]: at most {SKU_BYTES} characters, got {len(skus[place])}")


def check_batch(field: str, skus: Sequence[str]) -> None:
    """BadRequest, naming the product, unless a request's `field` names 1 to MAX_BATCH that can be kept."""
    if not 1 <= len(skus) <= MAX_BATCH:
        raise BadRequest(f"{field}: expected 1 to {MAX_BATCH} products, got {len(skus)}")
    seen: set[str] = set()
    for place, sku in enumerate(skus):
        if fault := "twice in one call" if sku in seen else sku_fault(sku):
            raise BadRequest(f"{field}[{place}]: sku {quoted(sku)}: {fault}")
        seen.add(sku)


def _no_moment(ts: int) -> str:
    return f"expected Unix seconds, 0 to {LAST_TS}, got {ts}"


def _action(number: int) -> ActionType:
    return _ACTIONS.get(number, ActionType.UNKNOWN)

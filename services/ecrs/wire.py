"""Protobuf messages ⇄ the domain's users and items: the one place that knows both names."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ecrs.actions import ActionType, Interaction
from ecrs.contract.item_info_pb2 import ItemInfo, SourceTable
from ecrs.contract.user_info_pb2 import Interaction as InteractionInfo
from ecrs.contract.user_info_pb2 import Totals as TotalsInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain import HISTORY_LENGTH, NEW_USER_IDS, UNKNOWN, Item, User, has_control, sku_fault
from ecrs.kit.errors import BadRequest
from ecrs.sources import Sources
from ecrs.totals import MAX_PRODUCTS, TOTALS, Totals

_ROW = np.dtype(("<f8", len(TOTALS)))
"""A product's row of totals on the wire."""

MAX_BATCH = 1000
"""Products that one call may put, remove or mark."""


def to_user(info: UserInfo) -> User:
    return User(
        id="" if info.user_id in NEW_USER_IDS else info.user_id,
        age=info.age or UNKNOWN,
        sex=info.sex or UNKNOWN,
        city_level=info.city_level or UNKNOWN,
        province=info.province or UNKNOWN,
        city=info.city or UNKNOWN,
        county=info.country or UNKNOWN,
        totals=to_totals(info.totals),
        history=tuple(Interaction(i.sku_id, i.ts, _action(i.type)) for i in info.history[:HISTORY_LENGTH]),
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
    """The first MAX_PRODUCTS; BadRequest if there are not as many numbers as there should be."""
    skus = tuple(info.sku_ids)
    if len(info.numbers) != len(skus) * _ROW.itemsize:
        raise BadRequest(
            f"user_info.totals.numbers: {len(info.numbers)} bytes, expected {_ROW.itemsize} a product, "
            f"{len(skus) * _ROW.itemsize}"
        )
    if not skus:
        return Totals()
    numbers = np.frombuffer(info.numbers, dtype="<f8").reshape(-1, len(TOTALS))
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
    items = [replace(to_item(info), statistics=()) for info in infos]
    for place, item in enumerate(items):
        if any(has_control(value) for value in (item.brand, item.shop, item.category)):
            raise BadRequest(
                f"item_infos[{place}]: sku {item.sku!r}: brand, shopid or cate holds a control character"
            )
    return items


def check_batch(field: str, skus: Sequence[str]) -> None:
    """BadRequest, naming the product, unless a request's `field` names 1 to MAX_BATCH that can be kept."""
    if not 1 <= len(skus) <= MAX_BATCH:
        raise BadRequest(f"{field}: expected 1 to {MAX_BATCH} products, got {len(skus)}")
    seen: set[str] = set()
    for place, sku in enumerate(skus):
        if fault := "twice in one call" if sku in seen else sku_fault(sku):
            raise BadRequest(f"{field}[{place}]: sku {sku!r}: {fault}")
        seen.add(sku)


def _action(number: int) -> ActionType:
    return ActionType(number) if number in ActionType._value2member_map_ else ActionType.UNKNOWN

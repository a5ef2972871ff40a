"""Converts protobuf messages to domain objects and back.

No other module maps the field names of one to those of the other.
"""

from collections.abc import Sequence

import numpy as np

from ecrs.contract import item_info_pb2, user_info_pb2
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, MAX_PRODUCTS, Aggregates
from ecrs.domain.entities import (
    HISTORY_LENGTH,
    LARGEST_AGGREGATES,
    NEW_USER_IDS,
    UNKNOWN,
    Item,
    User,
    impossible_number,
)
from ecrs.domain.provenance import ProvenanceTable
from ecrs.rpc.errors import BadRequest, quoted
from ecrs.wire.validation import check_batch, check_item_value, check_timestamp, first_duplicate

_ROW = np.dtype(("<f8", len(AGGREGATE_COLUMNS)))
"""The aggregates of one item, as they are sent."""

MAX_CHANNELS = 16
"""Most retrieval channels in a provenance table; the platform has five."""

_ACTIONS = {int(action): action for action in ActionType}


def to_user(info: UserInfo) -> User:
    """Convert a user, with the first HISTORY_LENGTH interactions of its history.

    Raises BadRequest for an invalid timestamp or invalid aggregates.
    """
    history = info.history[:HISTORY_LENGTH]
    for index, interaction in enumerate(history):
        check_timestamp(f"user_info.history[{index}].ts", interaction.ts)
    return User(
        id="" if info.user_id in NEW_USER_IDS else info.user_id,
        age=info.age or UNKNOWN,
        sex=info.sex or UNKNOWN,
        city_level=info.city_level or UNKNOWN,
        province=info.province or UNKNOWN,
        city=info.city or UNKNOWN,
        county=info.country or UNKNOWN,
        aggregates=to_aggregates(info.aggregates),
        history=tuple(Interaction(i.sku_id, i.ts, _action(i.type)) for i in history),
    )


def from_user(user: User) -> UserInfo:
    """Convert a user to its message."""
    return UserInfo(
        user_id=user.id,
        age=user.age,
        sex=user.sex,
        city_level=user.city_level,
        province=user.province,
        city=user.city,
        country=user.county,
        aggregates=from_aggregates(user.aggregates),
        history=[user_info_pb2.Interaction(sku_id=i.sku, ts=i.ts, type=i.type.name) for i in user.history],
    )


def to_aggregates(info: user_info_pb2.Aggregates) -> Aggregates:
    """Convert aggregates, the first MAX_PRODUCTS rows of them.

    Raises BadRequest if the bytes are not one row per item, an item appears twice, or a number is NaN,
    negative, or larger than a count or a timestamp can be.
    """
    expected = len(info.sku_ids) * _ROW.itemsize
    if len(info.numbers) != expected:
        raise BadRequest(
            f"user_info.aggregates.numbers: {len(info.numbers)} bytes, expected {_ROW.itemsize} a product, "
            f"{expected}"
        )
    if not expected:
        return Aggregates()
    skus = tuple(info.sku_ids)
    if (duplicate := first_duplicate(skus)) is not None:
        raise BadRequest(f"user_info.aggregates.sku_ids: {quoted(duplicate)} appears twice")
    numbers = np.frombuffer(info.numbers, dtype="<f8").reshape(-1, len(AGGREGATE_COLUMNS))
    if impossible := impossible_number(numbers):
        row, column = impossible
        raise BadRequest(
            f"user_info.aggregates.numbers: {AGGREGATE_COLUMNS[column]} of {quoted(skus[row])}: "
            f"expected 0 to {LARGEST_AGGREGATES[column]:.0f}, got {numbers[row, column]:.16g}"
        )
    return Aggregates(skus[:MAX_PRODUCTS], numbers[:MAX_PRODUCTS])


def from_aggregates(aggregates: Aggregates) -> user_info_pb2.Aggregates:
    """Convert aggregates to their message."""
    return user_info_pb2.Aggregates(
        sku_ids=aggregates.skus, numbers=aggregates.numbers.astype("<f8").tobytes()
    )


def to_provenance(table: item_info_pb2.ProvenanceTable, n: int) -> ProvenanceTable:
    """Convert the provenance of `n` items.

    Raises BadRequest unless it has `n` values per channel and at most MAX_CHANNELS channels.
    """
    if len(table.channels) > MAX_CHANNELS:
        raise BadRequest(f"provenance.channels: at most {MAX_CHANNELS}, got {len(table.channels)}")
    channels = tuple(table.channels)
    count = n * len(channels)
    for name, values in (("positions", table.positions), ("scores", table.scores)):
        if len(values) != count:
            raise BadRequest(
                f"provenance.{name}: {len(values)} values, expected {n} items by {len(channels)} channels"
            )
    if not count:
        return ProvenanceTable.empty(n)
    positions = np.fromiter(table.positions, np.int64, count)
    scores = np.fromiter(table.scores, np.float32, count)
    return ProvenanceTable(channels, positions.reshape(n, -1), scores.reshape(n, -1))


def from_provenance(provenance: ProvenanceTable) -> item_info_pb2.ProvenanceTable:
    """Convert a provenance table to its message."""
    return item_info_pb2.ProvenanceTable(
        channels=provenance.channels,
        positions=provenance.positions.ravel().tolist(),
        scores=provenance.scores.ravel().tolist(),
    )


def describes_user(info: UserInfo) -> bool:
    """True if `user_info` has a profile value, a history or aggregates, not only an id."""
    return bool(
        info.age
        or info.sex
        or info.city_level
        or info.province
        or info.city
        or info.country
        or info.history
        or info.aggregates.sku_ids
    )


def to_item(info: ItemInfo) -> Item:
    """Convert an item record."""
    return Item(
        info.sku_id,
        info.brand or UNKNOWN,
        info.shopid or UNKNOWN,
        info.cate or UNKNOWN,
        info.out_of_stock,
    )


def from_item(item: Item) -> ItemInfo:
    """Convert an item record to its message."""
    return ItemInfo(
        sku_id=item.sku,
        brand=item.brand,
        shopid=item.shop,
        cate=item.category,
        out_of_stock=item.out_of_stock,
    )


def to_new_items(infos: Sequence[ItemInfo]) -> list[Item]:
    """Convert the items of a PutItemsRequest. Raises BadRequest naming the item that is invalid."""
    check_batch("item_infos", [info.sku_id for info in infos])
    for index, info in enumerate(infos):
        for name in ("brand", "shopid", "cate"):
            check_item_value(f"item_infos[{index}]: sku {info.sku_id!r}: {name}", getattr(info, name))
    return [to_item(info) for info in infos]


def _action(number: int) -> ActionType:
    return _ACTIONS.get(number, ActionType.UNKNOWN)

"""How user and item records are stored: keys and JSON.

{id}##user_info      JSON object, field names of UserInfo
{id}##history        JSON list of [sku, ts, type], newest first
{id}##aggregates     JSON object, sku_ids and the columns of AGGREGATE_COLUMNS, each a list
{id}##product_info   JSON object, field names of ItemInfo
ecrs##bundle         JSON object, the bundle that was seeded
ecrs##changed        set of skus added or removed since; seeding the same bundle again leaves them alone
ecrs##out_of_stock   set of skus; the shop sets it, so it survives the seeding of another bundle
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, WHOLE_NUMBER_COLUMNS, Aggregates
from ecrs.domain.entities import Item, User

BUNDLE_KEY = "ecrs##bundle"
CHANGED_KEY = "ecrs##changed"
OUT_OF_STOCK_KEY = "ecrs##out_of_stock"

MALFORMED_RECORD_ERRORS = (ValueError, TypeError, KeyError, AttributeError)
"""Exceptions that parsing a malformed stored record can raise."""

_USER_FIELDS = {
    "id": "user_id",
    "age": "age",
    "sex": "sex",
    "city_level": "city_level",
    "province": "province",
    "city": "city",
    "county": "country",
}
"""Fields of User and their names in a stored record."""


def user_key(user_id: str) -> str:
    """Key of a user's profile."""
    return f"{user_id}##user_info"


def history_key(user_id: str) -> str:
    """Key of a user's newest interactions."""
    return f"{user_id}##history"


def aggregates_key(user_id: str) -> str:
    """Key of a user's aggregates."""
    return f"{user_id}##aggregates"


def item_key(sku: str) -> str:
    """Key of an item record."""
    return f"{sku}##product_info"


def dump_user(user: User) -> bytes:
    """A user's profile as JSON."""
    return orjson.dumps({name: getattr(user, field) for field, name in _USER_FIELDS.items()})


def dump_history(history: Sequence[Interaction]) -> bytes:
    """Interactions as JSON."""
    return orjson.dumps([[i.sku, i.ts, int(i.type)] for i in history])


def dump_aggregates(aggregates: Aggregates) -> bytes:
    """Aggregates as JSON, a list per column."""
    columns = zip(AGGREGATE_COLUMNS, aggregates.numbers.T, strict=True)
    typed = {
        name: column.astype(np.int64) if name in WHOLE_NUMBER_COLUMNS else column for name, column in columns
    }
    return orjson.dumps(
        {"sku_ids": aggregates.skus} | {name: column.tolist() for name, column in typed.items()}
    )


def dump_item(item: Item) -> bytes:
    """An item record as JSON."""
    return orjson.dumps({"sku_id": item.sku, "brand": item.brand, "shopid": item.shop, "cate": item.category})


def load_user(profile: bytes, history: bytes | None, aggregates: bytes | None) -> User:
    """A user from the three stored values. Raises one of MALFORMED_RECORD_ERRORS."""
    raw = orjson.loads(profile)
    interactions = orjson.loads(history) if history else []
    return User(
        **{field: _text(raw, name) for field, name in _USER_FIELDS.items()},
        history=tuple(Interaction(str(sku), int(ts), ActionType(kind)) for sku, ts, kind in interactions),
        aggregates=load_aggregates(aggregates) if aggregates else Aggregates(),
    )


def load_aggregates(raw: bytes) -> Aggregates:
    """Aggregates from JSON. Raises one of MALFORMED_RECORD_ERRORS."""
    record = orjson.loads(raw)
    numbers = np.array([record[name] for name in AGGREGATE_COLUMNS], dtype=np.float64).T
    return Aggregates(tuple(record["sku_ids"]), numbers)


def load_item(raw: bytes, *, out_of_stock: bool) -> Item:
    """An item from JSON. Raises one of MALFORMED_RECORD_ERRORS."""
    record = orjson.loads(raw)
    sku, brand, shop, category = (_text(record, name) for name in ("sku_id", "brand", "shopid", "cate"))
    return Item(sku, brand, shop, category, out_of_stock)


def _text(record: Any, name: str) -> str:
    """A string field of a record. Raises KeyError or TypeError."""
    if not isinstance(text := record[name], str):
        raise TypeError(f"{name}: expected a string, got {text!r:.80}")
    return text

"""Keys and JSON formats of the profile store.

Records of the shop, under the original system's keys. A seed replaces each record in one step.

{id}##user_info              object, field names of UserInfo
{sku}##product_info          object, field names of ItemInfo
ecrs##out_of_stock           set of skus that the shop marked; a seed never changes it
ecrs##item_journal_applied## followed by records or vectors: the position in the journal of item changes up to
                             which the item records, or the vectors in recall, follow it

Bundle-derived data, computed from the bundle's log up to its cutoff time. A seed replaces all of it in one
step: it writes the keys of the new version, then changes the live version.

{id}##history##{version}     list of [sku, ts, type], newest first
{id}##aggregates##{version}  object of lists of equal length: sku_ids and the columns of AGGREGATE_COLUMNS
ecrs##bundle                 object: the live version, and whether its seed is complete

Functions named `load_…` read what another program may have written, and accept the value of a key of any
length and type. They raise MalformedData, with a text that names the record and the field, unless the record
is of the given user or item and keeps to the limits of `ecrs.domain.entities`.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np

from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, MAX_PRODUCTS, WHOLE_NUMBER_COLUMNS, Aggregates
from ecrs.domain.entities import (
    HISTORY_LENGTH,
    MAX_ITEM_BYTES,
    MAX_SKU_BYTES,
    MAX_TIMESTAMP,
    Item,
    User,
    impossible_number,
    is_long,
)
from ecrs.rpc.errors import MalformedData, quoted

T = TypeVar("T")

BUNDLE_KEY = "ecrs##bundle"
OUT_OF_STOCK_KEY = "ecrs##out_of_stock"

MAX_RECORD_BYTES = 4 * 1024
"""Longest valid record of a user's profile, an item or the live bundle."""
MAX_HISTORY_BYTES = 64 * 1024
"""Longest valid history: more than HISTORY_LENGTH interactions with the longest skus take."""
MAX_AGGREGATES_BYTES = 512 * 1024
"""Longest valid aggregates. Twice as long as MAX_PRODUCTS rows with the longest skus; parsed in 1 ms."""

StoredValue: TypeAlias = bytes | Exception
"""The value of a key, of which only the first bytes may have been read; or the store's error, if the key
holds something else than a string."""


class _UserRecord(msgspec.Struct, rename={"id": "user_id", "county": "country"}):
    """A user's profile: fields of User, stored under the original system's names."""

    id: str
    age: str
    sex: str
    city_level: str
    province: str
    city: str
    county: str


class _ItemRecord(msgspec.Struct, rename={"sku": "sku_id", "shop": "shopid", "category": "cate"}):
    """An item: fields of Item, stored under the original system's names."""

    sku: str
    brand: str
    shop: str
    category: str


class _InteractionRecord(NamedTuple):
    sku: str
    ts: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP)]
    type: ActionType


class StoredBundle(msgspec.Struct, frozen=True):
    """The live bundle: histories and aggregates are read under its version.

    `complete` is True if the store holds this bundle and no data of any other. It is False while a seed is
    running, and after a seed that did not finish.
    """

    version: Annotated[str, msgspec.Meta(min_length=1)]
    complete: bool = False


class StoredKey(NamedTuple):
    """A parsed key of a user's or an item's data; `version` is empty for records of the shop."""

    name: bytes
    id: bytes
    kind: bytes
    version: bytes

    @classmethod
    def parse(cls, name: bytes) -> "StoredKey | None":
        """Parse a key; None if it does not belong to a user or an item."""
        match = _KEY.fullmatch(name)
        return match and cls(name, match["id"], match["shop"] or match["derived"], match["version"] or b"")

    @property
    def is_item(self) -> bool:
        """True for an item record."""
        return self.kind == b"product_info"

    @property
    def is_bundle_derived(self) -> bool:
        """True for a history or aggregates, which exist once per bundle version."""
        return self.kind in (b"history", b"aggregates")


_KEY = re.compile(
    rb"(?P<id>.+)##(?:(?P<shop>user_info|product_info)|(?P<derived>history|aggregates)(?:##(?P<version>\w+))?)",
    re.DOTALL,
)


_USER = msgspec.json.Decoder(_UserRecord)
_ITEM = msgspec.json.Decoder(_ItemRecord)
_HISTORY = msgspec.json.Decoder(list[_InteractionRecord])
_AGGREGATES: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "AggregatesRecord",
        [("sku_ids", tuple[str, ...]), *((name, list[float]) for name in AGGREGATE_COLUMNS)],
    )
)
_BUNDLE = msgspec.json.Decoder(StoredBundle)


def user_key(user_id: str) -> str:
    """Return the key of a user's profile."""
    return f"{user_id}##user_info"


def history_key(user_id: str, version: str) -> str:
    """Return the key of a user's newest interactions, as of bundle `version`."""
    return f"{user_id}##history##{version}"


def aggregates_key(user_id: str, version: str) -> str:
    """Return the key of a user's aggregates, as of bundle `version`."""
    return f"{user_id}##aggregates##{version}"


def item_key(sku: str) -> str:
    """Return the key of an item record."""
    return f"{sku}##product_info"


def dump_user(user: User) -> bytes:
    """Encode a user's profile as JSON."""
    return msgspec.json.encode(msgspec.convert(user, _UserRecord, from_attributes=True))


def dump_history(history: Sequence[Interaction]) -> bytes:
    """Encode interactions as JSON."""
    return msgspec.json.encode(history)


def dump_aggregates(aggregates: Aggregates) -> bytes:
    """Encode aggregates as JSON, one list per column."""
    columns = {
        name: column.astype(np.int64 if name in WHOLE_NUMBER_COLUMNS else np.float64).tolist()
        for name, column in zip(AGGREGATE_COLUMNS, aggregates.numbers.T, strict=True)
    }
    return msgspec.json.encode({"sku_ids": aggregates.skus} | columns)


def dump_item(item: Item) -> bytes:
    """Encode an item record as JSON; its stock is stored elsewhere, in the set OUT_OF_STOCK_KEY."""
    return msgspec.json.encode(_ItemRecord(item.sku, item.brand, item.shop, item.category))


def dump_bundle(bundle: StoredBundle) -> bytes:
    """Encode the live bundle as JSON."""
    return msgspec.json.encode(bundle)


def load_profile(user_id: str, raw: StoredValue) -> User:
    """Decode a user's profile."""
    name = f"the stored profile of user {quoted(user_id)}"
    record = _decode(_USER, raw, MAX_RECORD_BYTES, name)
    if record.id != user_id:
        raise _malformed(name, f"it is that of {quoted(record.id)} - at `$.user_id`")
    return User(**msgspec.structs.asdict(record))


def load_history(user_id: str, raw: StoredValue) -> tuple[Interaction, ...]:
    """Decode a user's history, the first HISTORY_LENGTH interactions of it."""
    name = f"the stored history of user {quoted(user_id)}"
    records = _decode(_HISTORY, raw, MAX_HISTORY_BYTES, name)
    history = tuple(Interaction(*record) for record in records[:HISTORY_LENGTH])
    _check_skus(name, [interaction.sku for interaction in history])
    return history


def load_aggregates(user_id: str, raw: StoredValue) -> Aggregates:
    """Decode a user's aggregates, the first MAX_PRODUCTS rows of them."""
    name = f"the stored aggregates of user {quoted(user_id)}"
    record = _decode(_AGGREGATES, raw, MAX_AGGREGATES_BYTES, name)
    skus, columns = record.sku_ids, [getattr(record, column) for column in AGGREGATE_COLUMNS]
    for column, values in zip(AGGREGATE_COLUMNS, columns, strict=True):
        if len(values) != len(skus):
            raise _malformed(name, f"{len(values)} values, expected {len(skus)} - at `$.{column}`")
    _check_skus(name, skus)
    if len(set(skus)) < len(skus):
        raise _malformed(name, "an item appears twice - at `$.sku_ids`")
    numbers = np.array(columns, dtype=np.float64).T
    if impossible := impossible_number(numbers):
        row, index = impossible
        field = f"$.{AGGREGATE_COLUMNS[index]}[{row}]"
        raise _malformed(name, f"{numbers[row, index]:.16g} is impossible - at `{field}`")
    return Aggregates(skus[:MAX_PRODUCTS], numbers[:MAX_PRODUCTS])


def load_item(sku: str, raw: StoredValue) -> Item:
    """Decode an item record. It does not say whether the item is in stock."""
    name = f"the stored record of item {quoted(sku)}"
    record = _decode(_ITEM, raw, MAX_RECORD_BYTES, name)
    if record.sku != sku:
        raise _malformed(name, f"it is that of {quoted(record.sku)} - at `$.sku_id`")
    if len("".join((record.sku, record.brand, record.shop, record.category)).encode()) > MAX_ITEM_BYTES:
        raise _malformed(name, f"its values are longer than {MAX_ITEM_BYTES} bytes")
    return Item(record.sku, record.brand, record.shop, record.category)


def load_bundle(raw: StoredValue | None) -> StoredBundle | None:
    """Decode the live bundle; None, before the first seed, stays None."""
    return None if raw is None else _decode(_BUNDLE, raw, MAX_RECORD_BYTES, BUNDLE_KEY)


def _decode(decoder: msgspec.json.Decoder[T], raw: StoredValue, max_bytes: int, name: str) -> T:
    if isinstance(raw, Exception):
        raise _malformed(name, "it is not a string") from raw
    if len(raw) > max_bytes:
        raise _malformed(name, f"it is longer than {max_bytes} bytes")
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _malformed(name, str(error)) from error


def _check_skus(name: str, skus: Sequence[str]) -> None:
    if any(map(is_long, skus)):
        raise _malformed(name, f"a sku is longer than {MAX_SKU_BYTES} bytes")


def _malformed(name: str, reason: str) -> MalformedData:
    return MalformedData(f"{name} is malformed: {reason}")

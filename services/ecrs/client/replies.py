"""Formats a service's reply as text or JSON, with the original system's fields or with all fields."""

import json
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from ecrs.contract.item_info_pb2 import Provenance
from ecrs.contract.recall_pb2 import RecallResponse
from ecrs.contract.um_pb2 import UserModelResponse
from ecrs.contract.user_info_pb2 import Aggregates
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, WHOLE_NUMBER_COLUMNS
from ecrs.wire.messages import to_aggregates, to_provenance

ORIGINAL_FIELDS = {
    "error": ("code", "text"),
    "user_info": ("user_id", "age", "sex", "city_level", "province", "city", "country"),
    "item_infos": ("sku_id", "brand", "shopid", "cate", "rank_score"),
    "score_pairs": ("nid", "score"),
}
"""The fields of the original system's replies, each with its own fields."""


def as_text(reply: Message, *, full: bool = False) -> str:
    """Return `reply` in protobuf text format.

    `full` adds the fields that the original does not have, except the numbers of a user's aggregates, which
    are packed bytes; use `as_json` to decode them.
    """
    if not full:
        return str(original_fields(reply))
    shown = _copy(reply)
    if _has_aggregates(shown):
        shown.user_info.aggregates.ClearField("numbers")
    return str(shown)


def as_json(reply: Message, *, full: bool = False) -> str:
    """Return `reply` as one JSON object in protobuf's JSON mapping, with the field names of the proto files.

    `full` adds the fields that the original does not have. Two of them are packed on the wire and decoded
    here: a user's aggregates become one object per item, recall's provenance a list in each score pair.
    """
    shown = _decoded(reply) if full else _to_dict(original_fields(reply))
    return json.dumps(shown, indent=2, ensure_ascii=False)


def original_fields(reply: Message) -> Any:
    """Return a copy of `reply` that only has the fields in ORIGINAL_FIELDS."""
    kept = _copy(reply)
    _clear_all_but(kept, ORIGINAL_FIELDS)
    for field, value in kept.ListFields():
        for part in value if field.is_repeated else [value]:
            _clear_all_but(part, ORIGINAL_FIELDS[field.name])
    return kept


def _clear_all_but(message: Message, names: Any) -> None:
    for field, _ in message.ListFields():
        if field.name not in names:
            message.ClearField(field.name)


def _decoded(reply: Any) -> dict[str, Any]:
    fields = _to_dict(reply)
    if _has_aggregates(reply):
        fields["user_info"]["aggregates"] = _aggregate_rows(reply.user_info.aggregates)
    if isinstance(reply, RecallResponse) and reply.HasField("provenance"):
        del fields["provenance"]
        entries = to_provenance(reply.provenance, len(reply.score_pairs)).entries()
        for pair, channels in zip(fields.get("score_pairs", ()), entries, strict=True):
            pair["provenance"] = [
                _to_dict(Provenance(channel=channel, position=position, score=score))
                for channel, position, score in channels
            ]
    return fields


def _has_aggregates(reply: Any) -> bool:
    return isinstance(reply, UserModelResponse) and reply.user_info.HasField("aggregates")


def _aggregate_rows(packed: Aggregates) -> list[dict[str, Any]]:
    aggregates = to_aggregates(packed)
    return [
        {"sku_id": sku}
        | {
            name: int(number) if name in WHOLE_NUMBER_COLUMNS else number
            for name, number in zip(AGGREGATE_COLUMNS, numbers, strict=True)
        }
        for sku, numbers in zip(aggregates.skus, aggregates.numbers.tolist(), strict=True)
    ]


def _to_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _copy(message: Message) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy

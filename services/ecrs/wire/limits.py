"""The limits of every method: the longest valid request, and the number of items that determines its cost.

Parsing the worst request of 256 KB takes 3 ms: 131,072 empty interactions. `rank_predict` accepts more, for
1,000 items with long values; its worst request takes 20 ms.
"""

from collections.abc import Mapping
from typing import Any

from ecrs.domain.sizes import DEFAULT_ITEMS
from ecrs.rpc.limits import MethodLimits

KB = 1024

USER_BYTES = 256 * KB
"""Longest user_info. 1,000 aggregates and 50 interactions with the longest valid skus take 203 KB.

The gateway sends the user on to recall and rank. They accept what it accepts, or else a long user would look
like a failure of recall or rank and open their circuit breakers."""

_HEADER_BYTES = 4 * KB
"""For the fields of a request besides users and items, such as log_id."""
_SKUS_BYTES = 160 * KB
"""For 1,000 skus, the longest of which take 131 bytes each."""
_ITEMS_BYTES = 576 * KB
"""For 1,000 item records, the longest of which take 535 bytes each."""
_VECTORS_BYTES = 1024 * KB
"""For 1,000 vectors of up to 160 dimensions, with sku and category."""


def _requested(request: Any) -> int:
    return request.request_num or DEFAULT_ITEMS


def _named(request: Any) -> int:
    return len(request.item_ids)


def _described(request: Any) -> int:
    return len(request.item_infos)


LIMITS: Mapping[str, MethodLimits] = {
    "/um.UMService/um_call": MethodLimits(_HEADER_BYTES),
    "/cm.CMService/cm_call": MethodLimits(_SKUS_BYTES, _named),
    "/cm.CMService/put_items": MethodLimits(_ITEMS_BYTES, _described),
    "/cm.CMService/remove_items": MethodLimits(_SKUS_BYTES, _named),
    "/cm.CMService/set_stock": MethodLimits(_SKUS_BYTES, _named),
    "/recall.RecallService/recall": MethodLimits(USER_BYTES + _HEADER_BYTES, _requested),
    "/recall.RecallService/upsert_vectors": MethodLimits(
        _VECTORS_BYTES, lambda request: len(request.vectors)
    ),
    "/recall.RecallService/remove_vectors": MethodLimits(_SKUS_BYTES, _named),
    "/RankService/rank_predict": MethodLimits(USER_BYTES + _ITEMS_BYTES + 64 * KB, _described),
    "/as.ASService/as_call": MethodLimits(USER_BYTES + _HEADER_BYTES, _requested),
}

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Provenance(_message.Message):
    __slots__ = ("channel", "position", "score")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    channel: str
    position: int
    score: float
    def __init__(self, channel: _Optional[str] = ..., position: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class ProvenanceTable(_message.Message):
    __slots__ = ("channels", "positions", "scores")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedScalarFieldContainer[str]
    positions: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, channels: _Optional[_Iterable[str]] = ..., positions: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...

class ItemInfo(_message.Message):
    __slots__ = ("sku_id", "brand", "shopid", "cate", "rank_score", "provenance", "out_of_stock")
    SKU_ID_FIELD_NUMBER: _ClassVar[int]
    BRAND_FIELD_NUMBER: _ClassVar[int]
    SHOPID_FIELD_NUMBER: _ClassVar[int]
    CATE_FIELD_NUMBER: _ClassVar[int]
    RANK_SCORE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_STOCK_FIELD_NUMBER: _ClassVar[int]
    sku_id: str
    brand: str
    shopid: str
    cate: str
    rank_score: float
    provenance: _containers.RepeatedCompositeFieldContainer[Provenance]
    out_of_stock: bool
    def __init__(self, sku_id: _Optional[str] = ..., brand: _Optional[str] = ..., shopid: _Optional[str] = ..., cate: _Optional[str] = ..., rank_score: _Optional[float] = ..., provenance: _Optional[_Iterable[_Union[Provenance, _Mapping]]] = ..., out_of_stock: _Optional[bool] = ...) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN: _ClassVar[ActionType]
    VIEW: _ClassVar[ActionType]
    ORDER: _ClassVar[ActionType]
    FOLLOW: _ClassVar[ActionType]
    COMMENT: _ClassVar[ActionType]
    CART: _ClassVar[ActionType]
UNKNOWN: ActionType
VIEW: ActionType
ORDER: ActionType
FOLLOW: ActionType
COMMENT: ActionType
CART: ActionType

class Interaction(_message.Message):
    __slots__ = ("sku_id", "ts", "type")
    SKU_ID_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    sku_id: str
    ts: int
    type: ActionType
    def __init__(self, sku_id: _Optional[str] = ..., ts: _Optional[int] = ..., type: _Optional[_Union[ActionType, str]] = ...) -> None: ...

class Aggregates(_message.Message):
    __slots__ = ("sku_ids", "numbers")
    SKU_IDS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    sku_ids: _containers.RepeatedScalarFieldContainer[str]
    numbers: bytes
    def __init__(self, sku_ids: _Optional[_Iterable[str]] = ..., numbers: _Optional[bytes] = ...) -> None: ...

class UserInfo(_message.Message):
    __slots__ = ("user_id", "age", "sex", "city_level", "province", "city", "country", "history", "aggregates")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    SEX_FIELD_NUMBER: _ClassVar[int]
    CITY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    PROVINCE_FIELD_NUMBER: _ClassVar[int]
    CITY_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    AGGREGATES_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    age: str
    sex: str
    city_level: str
    province: str
    city: str
    country: str
    history: _containers.RepeatedCompositeFieldContainer[Interaction]
    aggregates: Aggregates
    def __init__(self, user_id: _Optional[str] = ..., age: _Optional[str] = ..., sex: _Optional[str] = ..., city_level: _Optional[str] = ..., province: _Optional[str] = ..., city: _Optional[str] = ..., country: _Optional[str] = ..., history: _Optional[_Iterable[_Union[Interaction, _Mapping]]] = ..., aggregates: _Optional[_Union[Aggregates, _Mapping]] = ...) -> None: ...

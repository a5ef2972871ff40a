from ecrs.contract import item_info_pb2 as _item_info_pb2
from ecrs.contract import user_info_pb2 as _user_info_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ASRequest(_message.Message):
    __slots__ = ("log_id", "user_id", "user_info", "request_num", "new_only", "now")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    USER_INFO_FIELD_NUMBER: _ClassVar[int]
    REQUEST_NUM_FIELD_NUMBER: _ClassVar[int]
    NEW_ONLY_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    user_id: str
    user_info: _user_info_pb2.UserInfo
    request_num: int
    new_only: bool
    now: int
    def __init__(self, log_id: _Optional[str] = ..., user_id: _Optional[str] = ..., user_info: _Optional[_Union[_user_info_pb2.UserInfo, _Mapping]] = ..., request_num: _Optional[int] = ..., new_only: _Optional[bool] = ..., now: _Optional[int] = ...) -> None: ...

class ASResponse(_message.Message):
    __slots__ = ("error", "item_infos", "bundle_version", "stages", "log_id", "degraded", "ranked")
    class Error(_message.Message):
        __slots__ = ("code", "text")
        CODE_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        code: int
        text: str
        def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...
    class Stage(_message.Message):
        __slots__ = ("name", "took_ms", "outcome")
        NAME_FIELD_NUMBER: _ClassVar[int]
        TOOK_MS_FIELD_NUMBER: _ClassVar[int]
        OUTCOME_FIELD_NUMBER: _ClassVar[int]
        name: str
        took_ms: float
        outcome: str
        def __init__(self, name: _Optional[str] = ..., took_ms: _Optional[float] = ..., outcome: _Optional[str] = ...) -> None: ...
    class Degradation(_message.Message):
        __slots__ = ("stage", "fallback")
        STAGE_FIELD_NUMBER: _ClassVar[int]
        FALLBACK_FIELD_NUMBER: _ClassVar[int]
        stage: str
        fallback: str
        def __init__(self, stage: _Optional[str] = ..., fallback: _Optional[str] = ...) -> None: ...
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ITEM_INFOS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    RANKED_FIELD_NUMBER: _ClassVar[int]
    error: ASResponse.Error
    item_infos: _containers.RepeatedCompositeFieldContainer[_item_info_pb2.ItemInfo]
    bundle_version: str
    stages: _containers.RepeatedCompositeFieldContainer[ASResponse.Stage]
    log_id: str
    degraded: _containers.RepeatedCompositeFieldContainer[ASResponse.Degradation]
    ranked: int
    def __init__(self, error: _Optional[_Union[ASResponse.Error, _Mapping]] = ..., item_infos: _Optional[_Iterable[_Union[_item_info_pb2.ItemInfo, _Mapping]]] = ..., bundle_version: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[ASResponse.Stage, _Mapping]]] = ..., log_id: _Optional[str] = ..., degraded: _Optional[_Iterable[_Union[ASResponse.Degradation, _Mapping]]] = ..., ranked: _Optional[int] = ...) -> None: ...

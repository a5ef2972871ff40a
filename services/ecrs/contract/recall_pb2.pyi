from ecrs.contract import item_info_pb2 as _item_info_pb2
from ecrs.contract import user_info_pb2 as _user_info_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecallRequest(_message.Message):
    __slots__ = ("log_id", "user_info", "recall_type", "request_num", "now", "new_only")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    USER_INFO_FIELD_NUMBER: _ClassVar[int]
    RECALL_TYPE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_NUM_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    NEW_ONLY_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    user_info: _user_info_pb2.UserInfo
    recall_type: str
    request_num: int
    now: int
    new_only: bool
    def __init__(self, log_id: _Optional[str] = ..., user_info: _Optional[_Union[_user_info_pb2.UserInfo, _Mapping]] = ..., recall_type: _Optional[str] = ..., request_num: _Optional[int] = ..., now: _Optional[int] = ..., new_only: _Optional[bool] = ...) -> None: ...

class RecallResponse(_message.Message):
    __slots__ = ("error", "score_pairs", "bundle_version", "missing_channels", "provenance")
    class Error(_message.Message):
        __slots__ = ("code", "text")
        CODE_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        code: int
        text: str
        def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...
    class ScorePair(_message.Message):
        __slots__ = ("nid", "score")
        NID_FIELD_NUMBER: _ClassVar[int]
        SCORE_FIELD_NUMBER: _ClassVar[int]
        nid: str
        score: float
        def __init__(self, nid: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SCORE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MISSING_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    error: RecallResponse.Error
    score_pairs: _containers.RepeatedCompositeFieldContainer[RecallResponse.ScorePair]
    bundle_version: str
    missing_channels: _containers.RepeatedScalarFieldContainer[str]
    provenance: _item_info_pb2.ProvenanceTable
    def __init__(self, error: _Optional[_Union[RecallResponse.Error, _Mapping]] = ..., score_pairs: _Optional[_Iterable[_Union[RecallResponse.ScorePair, _Mapping]]] = ..., bundle_version: _Optional[str] = ..., missing_channels: _Optional[_Iterable[str]] = ..., provenance: _Optional[_Union[_item_info_pb2.ProvenanceTable, _Mapping]] = ...) -> None: ...

class UpsertVectorsRequest(_message.Message):
    __slots__ = ("log_id", "bundle_version", "vectors")
    class ItemVector(_message.Message):
        __slots__ = ("sku_id", "vector", "cate")
        SKU_ID_FIELD_NUMBER: _ClassVar[int]
        VECTOR_FIELD_NUMBER: _ClassVar[int]
        CATE_FIELD_NUMBER: _ClassVar[int]
        sku_id: str
        vector: _containers.RepeatedScalarFieldContainer[float]
        cate: str
        def __init__(self, sku_id: _Optional[str] = ..., vector: _Optional[_Iterable[float]] = ..., cate: _Optional[str] = ...) -> None: ...
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    bundle_version: str
    vectors: _containers.RepeatedCompositeFieldContainer[UpsertVectorsRequest.ItemVector]
    def __init__(self, log_id: _Optional[str] = ..., bundle_version: _Optional[str] = ..., vectors: _Optional[_Iterable[_Union[UpsertVectorsRequest.ItemVector, _Mapping]]] = ...) -> None: ...

class RemoveVectorsRequest(_message.Message):
    __slots__ = ("log_id", "bundle_version", "item_ids")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    bundle_version: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, log_id: _Optional[str] = ..., bundle_version: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class VectorsResponse(_message.Message):
    __slots__ = ("error", "bundle_version")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    error: RecallResponse.Error
    bundle_version: str
    def __init__(self, error: _Optional[_Union[RecallResponse.Error, _Mapping]] = ..., bundle_version: _Optional[str] = ...) -> None: ...

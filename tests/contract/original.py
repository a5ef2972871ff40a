"""The original system's wire format: messages, field numbers, types and service paths.

Written by hand and never regenerated from `proto/`, because the tests compare `proto/` with it.
Source: the proto files of the demo that this platform replaces.
"""

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

STRING, UINT32, FLOAT, MESSAGE = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_UINT32,
    FieldDescriptorProto.TYPE_FLOAT,
    FieldDescriptorProto.TYPE_MESSAGE,
)
ERROR = {"code": (1, UINT32), "text": (2, STRING)}
SCORE_PAIR = {"nid": (1, STRING), "score": (2, FLOAT)}
USER_INFO, ITEM_INFO = ".user_info.UserInfo", ".item_info.ItemInfo"

# file → (package, imports, message → field → (number, type or message, repeated?), service → method)
FILES = {
    "user_info.proto": (
        "user_info",
        [],
        {
            "UserInfo": {
                name: (number, STRING)
                for number, name in enumerate(
                    ("user_id", "age", "sex", "city_level", "province", "city", "country"), 1
                )
            }
        },
        {},
    ),
    "item_info.proto": (
        "item_info",
        [],
        {
            "ItemInfo": {
                "sku_id": (1, STRING),
                "brand": (2, STRING),
                "shopid": (3, STRING),
                "cate": (4, STRING),
                "rank_score": (5, FLOAT),
            }
        },
        {},
    ),
    "um.proto": (
        "um",
        ["user_info.proto"],
        {
            "UserModelRequest": {"log_id": (1, STRING), "user_id": (2, STRING)},
            "UserModelResponse": {
                "error": (1, ".um.UserModelResponse.Error"),
                "user_info": (2, USER_INFO),
                "+Error": ERROR,
            },
        },
        {"UMService": ("um_call", ".um.UserModelRequest", ".um.UserModelResponse")},
    ),
    "cm.proto": (
        "cm",
        ["item_info.proto"],
        {
            "CMRequest": {"log_id": (1, STRING), "item_ids": (2, STRING, True)},
            "CMResponse": {
                "error": (1, ".cm.CMResponse.Error"),
                "item_infos": (2, ITEM_INFO, True),
                "+Error": ERROR,
            },
        },
        {"CMService": ("cm_call", ".cm.CMRequest", ".cm.CMResponse")},
    ),
    "recall.proto": (
        "recall",
        ["user_info.proto"],
        {
            "RecallRequest": {
                "log_id": (1, STRING),
                "user_info": (2, USER_INFO),
                "recall_type": (3, STRING),
                "request_num": (4, UINT32),
            },
            "RecallResponse": {
                "error": (1, ".recall.RecallResponse.Error"),
                "score_pairs": (2, ".recall.RecallResponse.ScorePair", True),
                "+Error": ERROR,
                "+ScorePair": SCORE_PAIR,
            },
        },
        {"RecallService": ("recall", ".recall.RecallRequest", ".recall.RecallResponse")},
    ),
    "rank.proto": (
        "",
        ["user_info.proto", "item_info.proto"],
        {
            "RankRequest": {
                "log_id": (1, STRING),
                "user_info": (2, USER_INFO),
                "item_infos": (3, ITEM_INFO, True),
            },
            "RankResponse": {
                "error": (1, ".RankResponse.Error"),
                "score_pairs": (2, ".RankResponse.ScorePair", True),
                "+Error": ERROR,
                "+ScorePair": SCORE_PAIR,
            },
        },
        {"RankService": ("rank_predict", ".RankRequest", ".RankResponse")},
    ),
    "as.proto": (
        "as",
        ["item_info.proto", "user_info.proto"],
        {
            "ASRequest": {"log_id": (1, STRING), "user_id": (2, STRING), "user_info": (3, USER_INFO)},
            "ASResponse": {
                "error": (1, ".as.ASResponse.Error"),
                "item_infos": (2, ITEM_INFO, True),
                "+Error": ERROR,
            },
        },
        {"ASService": ("as_call", ".as.ASRequest", ".as.ASResponse")},
    ),
}


def descriptor() -> FileDescriptorSet:
    """Return the table above as protobuf descriptors."""
    return FileDescriptorSet(file=[_file(name, *parts) for name, parts in FILES.items()])


def _file(name, package, imports, messages, services) -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=package, dependency=imports, syntax="proto3")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        _fields(message, fields)
    for service_name, (method, request, reply) in services.items():
        service = file.service.add(name=service_name)
        service.method.add(name=method, input_type=request, output_type=reply)
    return file


def _fields(message, fields) -> None:
    for name, spec in fields.items():
        if name.startswith("+"):
            _fields(message.nested_type.add(name=name[1:]), spec)
            continue
        number, kind, repeated = (*spec, False)[:3]
        field = message.field.add(name=name, number=number)
        field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if isinstance(kind, str):
            field.type, field.type_name = MESSAGE, kind
        else:
            field.type = kind

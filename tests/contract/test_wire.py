"""`proto/` is compatible with the original's wire format, byte for byte, and only adds to it."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from ecrs.contract import as_pb2, cm_pb2, item_info_pb2, rank_pb2, recall_pb2, um_pb2, user_info_pb2
from tests.contract.original import descriptor

ROOT = Path(__file__).parents[2]
ORIGINAL = descriptor()
OURS = {
    file.name: file
    for file in (as_pb2, cm_pb2, item_info_pb2, rank_pb2, recall_pb2, um_pb2, user_info_pb2)
    for file in [file.DESCRIPTOR]
}

USER = {
    "user_id": "1", "age": "5.0", "sex": "1.0", "city_level": "5.0",
    "province": "20.0", "city": "176.0", "country": "1933.0",
}  # fmt: skip
ITEM = {"sku_id": "1", "brand": "3456", "shopid": "6980", "cate": "70", "rank_score": 0.5}
ERROR = {"code": 200, "text": "ok"}
PAIR = {"nid": "99654", "score": 1.5}

# Bytes of each message as the original system sends it, written out from the protobuf encoding.
U = "0a01311203352e301a03312e302203352e302a0432302e3032053137362e303a06313933332e30"
I = "0a01311204333435361a0436393830220237302d0000003f"  # noqa: E741 - the item
GOLDEN = {
    "user_info.UserInfo": (USER, U),
    "item_info.ItemInfo": (ITEM, I),
    "um.UserModelRequest": ({"log_id": "a", "user_id": "8888"}, "0a01611204" + "38383838"),
    "um.UserModelResponse": ({"error": ERROR, "user_info": USER}, "0a0708c80112026f6b12" + "27" + U),
    "cm.CMRequest": ({"item_ids": ["1", "2"]}, "120131120132"),
    "cm.CMResponse": ({"error": ERROR, "item_infos": [ITEM]}, "0a0708c80112026f6b12" + "18" + I),
    "recall.RecallRequest": (
        {"user_info": USER, "recall_type": "", "request_num": 100},
        "12" + "27" + U + "2064",
    ),
    "recall.RecallResponse": (
        {"error": ERROR, "score_pairs": [PAIR]},
        "0a0708c80112026f6b120c0a053939363534150000c03f",
    ),
    "RankRequest": ({"user_info": USER, "item_infos": [ITEM]}, "12" + "27" + U + "1a" + "18" + I),
    "RankResponse": (
        {"error": ERROR, "score_pairs": [PAIR]},
        "0a0708c80112026f6b120c0a053939363534150000c03f",
    ),
    "as.ASRequest": ({"user_id": "8888", "user_info": USER}, "1204383838381a" + "27" + U),
    "as.ASResponse": ({"error": ERROR, "item_infos": [ITEM]}, "0a0708c80112026f6b12" + "18" + I),
}

PATHS = {
    "um_pb2_grpc.UMServiceStub": {"um_call": "/um.UMService/um_call"},
    "cm_pb2_grpc.CMServiceStub": {"cm_call": "/cm.CMService/cm_call"},
    "recall_pb2_grpc.RecallServiceStub": {"recall": "/recall.RecallService/recall"},
    "rank_pb2_grpc.RankServiceStub": {"rank_predict": "/RankService/rank_predict"},
    "as_pb2_grpc.ASServiceStub": {"as_call": "/as.ASService/as_call"},
}


@pytest.mark.parametrize("original", ORIGINAL.file, ids=lambda file: file.name)
def test_every_field_and_method_of_the_original_is_unchanged(original: FileDescriptorProto) -> None:
    ours = FileDescriptorProto()
    OURS[original.name].CopyToProto(ours)
    assert ours.package == original.package
    assert _fields(original).items() <= _fields(ours).items()
    assert _methods(original) <= _methods(ours)


def test_new_fields_use_numbers_that_the_original_leaves_free() -> None:
    for original in ORIGINAL.file:
        ours = FileDescriptorProto()
        OURS[original.name].CopyToProto(ours)
        used_numbers = {(path.rpartition(".")[0], spec[0]) for path, spec in _fields(original).items()}
        new = _fields(ours).keys() - _fields(original).keys()
        assert not used_numbers & {(path.rpartition(".")[0], _fields(ours)[path][0]) for path in new}


@pytest.mark.parametrize("name", GOLDEN)
def test_messages_are_written_and_read_as_golden_bytes(name: str) -> None:
    values, golden = GOLDEN[name]
    message_type = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
    assert message_type(**values).SerializeToString(deterministic=True).hex() == golden
    assert message_type.FromString(bytes.fromhex(golden)) == message_type(**values)


@pytest.mark.parametrize("stub", PATHS)
def test_service_paths_are_those_of_the_original(stub: str) -> None:
    module, _, name = stub.partition(".")
    paths: dict[str, str] = {}

    class RecordingChannel:
        def unary_unary(self, path: str, **_: object) -> None:
            paths[path.rpartition("/")[2]] = path

    getattr(importlib.import_module(f"ecrs.contract.{module}"), name)(RecordingChannel())
    assert PATHS[stub].items() <= paths.items()


def test_committed_code_is_what_proto_generates(tmp_path: Path) -> None:
    protos = sorted(str(path) for path in (ROOT / "proto").glob("*.proto"))
    kinds = ("python", "pyi", "grpc_python", "mypy_grpc")
    outputs = [f"--{kind}_out={tmp_path}" for kind in kinds]
    stubs = shutil.which("protoc-gen-mypy_grpc", path=str(Path(sys.executable).parent))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--plugin={stubs}", f"-I{ROOT / 'proto'}"),
            *(*outputs, *protos),
        ],
        check=True,
    )
    committed = ROOT / "services" / "ecrs" / "contract"
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert fresh.keys() == {path.name for path in committed.glob("*_pb2*.py*")}
    for name, text in fresh.items():
        lines = [
            f"from ecrs.contract {line}" if line.startswith("import ") and "_pb2 as " in line else line
            for line in text.splitlines()
        ]
        assert (committed / name).read_text().splitlines() == lines, name


def _fields(file: FileDescriptorProto) -> dict[str, tuple[int, int, str, int]]:
    fields: dict[str, tuple[int, int, str, int]] = {}

    def walk(prefix: str, message: object) -> None:
        for field in message.field:
            fields[f"{prefix}.{field.name}"] = (field.number, field.type, field.type_name, field.label)
        for nested in message.nested_type:
            walk(f"{prefix}.{nested.name}", nested)

    for message in file.message_type:
        walk(message.name, message)
    return fields


def _methods(file: FileDescriptorProto) -> set[tuple[str, str, str, str]]:
    return {
        (service.name, method.name, method.input_type, method.output_type)
        for service in file.service
        for method in service.method
    }

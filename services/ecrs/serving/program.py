"""Reads the program of a saved Paddle model, `inference.pdmodel`, without Paddle.

The file is a serialized `ProgramDesc` of Paddle's framework.proto. Only what Paddle writes for an inference
program is accepted: one block, every field at most once where it is not repeated, and no attribute that
refers to another block or a variable. So nothing can mean one thing here and another to Paddle.

Both profiles use this file, see `ecrs.serving.signature`: Python 3.9, standard library and numpy only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BOOL, INT64, FLOAT32 = 0, 3, 5
"""Values of `VarType.Type` for the elements of tensors."""
_TENSOR, _FEED, _FETCH = 7, 9, 10
"""Values of `VarType.Type` for the variables of an inference program."""


class InvalidModel(ValueError):
    """A model's files cannot be loaded safely; the text gives the reason."""


@dataclass(frozen=True)
class Variable:
    """A tensor: the type of its elements, its shape (-1 for the batch), and whether it has a stored value."""

    dtype: int
    shape: tuple[int, ...]
    is_parameter: bool


@dataclass(frozen=True)
class Operator:
    """An operator: names of its variables by parameter, and its attributes."""

    type: str
    inputs: dict[str, list[str]]
    outputs: dict[str, list[str]]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Program:
    """The operators of a program, in the order in which they run, and its tensors by name."""

    operators: list[Operator]
    variables: dict[str, Variable]

    @classmethod
    def parse(cls, content: bytes) -> Program:
        """Parse a program. Raises InvalidModel if it is malformed or is not that of a saved model."""
        blocks = _read("ProgramDesc", content)["blocks"]
        if len(blocks) != 1:
            raise InvalidModel(f"{len(blocks)} blocks, expected 1")
        block = _read("BlockDesc", blocks[0])
        variables: dict[str, Variable] = {}
        for raw in block["vars"]:
            name, variable = _variable(raw)
            if not name or name in variables:
                raise InvalidModel(f"variable {name!r} has no name, or appears twice")
            if variable:
                variables[name] = variable
        return cls([_operator(raw) for raw in block["ops"]], variables)


def tensor_type(content: bytes) -> tuple[int, tuple[int, ...]]:
    """Parse a `VarType.TensorDesc`: the type of the elements and the shape. Raises InvalidModel."""
    tensor = _read("TensorDesc", content)
    return tensor.get("data_type", BOOL), tuple(tensor["dims"])


def _variable(content: bytes) -> tuple[str, Variable | None]:
    """Parse a variable. The lists of inputs and outputs, `feed` and `fetch`, are None."""
    raw = _read("VarDesc", content)
    name, kind = _text(raw.get("name", b"")), _read("VarType", raw.get("type", b""))
    if kind.get("type") in (_FEED, _FETCH) and "lod_tensor" not in kind:
        return name, None
    if kind.get("type") != _TENSOR:
        raise InvalidModel(f"variable {name!r} is not a tensor")
    lod_tensor = _read("LoDTensorDesc", kind.get("lod_tensor", b""))
    if lod_tensor.get("lod_level"):
        raise InvalidModel(f"variable {name!r} has levels of detail")
    dtype, shape = tensor_type(lod_tensor.get("tensor", b""))
    return name, Variable(dtype, shape, bool(raw.get("persistable")))


def _operator(content: bytes) -> Operator:
    raw = _read("OpDesc", content)
    kind = _text(raw.get("type", b""))
    attributes: dict[str, Any] = {}
    for attribute in raw["attrs"]:
        values = _read("Attr", attribute)
        name, field = _text(values.get("name", b"")), _ATTRIBUTES.get(values.get("type", 0))
        if field is None or name in attributes:
            raise InvalidModel(f"operator {kind}: attribute {name!r} is of an unknown type, or appears twice")
        attributes[name] = values.get(field, _DEFAULTS.get(field, 0))
    return Operator(kind, _arguments(kind, raw["inputs"]), _arguments(kind, raw["outputs"]), attributes)


def _arguments(kind: str, contents: list[bytes]) -> dict[str, list[str]]:
    """Parse the inputs or the outputs of an operator; parameters without a variable are left out."""
    names: dict[str, list[str]] = {}
    for content in contents:
        raw = _read("Var", content)
        parameter = _text(raw.get("parameter", b""))
        if parameter in names:
            raise InvalidModel(f"operator {kind}: parameter {parameter!r} appears twice")
        names[parameter] = [_text(name) for name in raw["arguments"]]
    return {parameter: variables for parameter, variables in names.items() if variables}


# ---- protobuf's wire format ---------------------------------------------------------------------

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types."""
_WIRE = {"int32": _VARINT, "int64": _VARINT, "bool": _VARINT, "bytes": _BYTES, "f": _FIXED32, "d": _FIXED64}

_MESSAGES = {
    "ProgramDesc": "1 blocks bytes*, 4 version bytes, 5 op_version_map bytes",
    "BlockDesc": "1 idx int32, 2 parent_idx int32, 3 vars bytes*, 4 ops bytes*, 5 forward_block_idx int32",
    "OpDesc": "1 inputs bytes*, 2 outputs bytes*, 3 type bytes, 4 attrs bytes*, 5 is_target bool",
    "Var": "1 parameter bytes, 2 arguments bytes*",
    "Attr": "1 name bytes, 2 type int32, 3 i int32, 4 f f, 5 s bytes, 6 ints int32*, 7 floats f*, "
    "8 strings bytes*, 10 b bool, 11 bools bool*, 13 l int64, 15 longs int64*, 16 float64s d*, 19 float64 d",
    "VarDesc": "1 name bytes, 2 type bytes, 3 persistable bool, 4 need_check_feed bool, "
    "5 is_parameter bool, 6 stop_gradient bool",
    "VarType": "1 type int32, 3 lod_tensor bytes",
    "LoDTensorDesc": "1 tensor bytes, 2 lod_level int32",
    "TensorDesc": "1 data_type int32, 2 dims int64*",
}
"""Number, name and type of the fields of each message; `*` marks those that are repeated."""

_ATTRIBUTES = {
    **{0: "i", 1: "f", 2: "s", 3: "ints", 4: "floats", 5: "strings", 6: "b", 7: "bools"},
    **{9: "l", 11: "longs", 12: "float64s", 15: "float64"},
}
"""`AttrType` → the field with the value. Blocks, variables and scalars, the other types, are not allowed."""
_DEFAULTS = {"s": b""}

_FIELDS = {
    message: {
        int(number) << 3 | _WIRE[kind.rstrip("*")]: (name, kind.rstrip("*"), kind.endswith("*"))
        for number, name, kind in (field.split() for field in fields.split(", "))
    }
    for message, fields in _MESSAGES.items()
}
"""Message → tag → name and type of the field, and whether it is repeated."""


def _read(message: str, content: bytes) -> dict[str, Any]:
    """Parse a message of _MESSAGES. Fields that are not set are missing, or an empty list if repeated."""
    fields = _FIELDS[message]
    values: dict[str, Any] = {name: [] for name, _, is_repeated in fields.values() if is_repeated}
    for tag, raw in _split(content):
        if tag not in fields:
            raise InvalidModel(f"{message}: field {tag >> 3} of wire type {tag & 7} is not allowed")
        name, kind, is_repeated = fields[tag]
        value = _value(kind, raw)
        if is_repeated:
            values[name].append(value)
        elif name in values:
            raise InvalidModel(f"{message}: {name} appears twice")
        else:
            values[name] = value
    return values


def _split(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the tag of each field with its value: an int, or the bytes."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        if tag & 7 == _VARINT:
            value, position = _varint(content, position)
            yield tag, value
            continue
        if tag & 7 == _BYTES:
            size, position = _varint(content, position)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(tag & 7, len(content))
        if position + size > len(content):
            raise InvalidModel("the program is truncated or malformed")
        yield tag, content[position : position + size]
        position += size


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Return the unsigned number at a position, and the position after it."""
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise InvalidModel("the program is truncated or malformed")


def _value(kind: str, raw: Any) -> Any:
    """Convert a field's value to its type."""
    if kind in ("f", "d"):
        return struct.unpack(f"<{kind}", raw)[0]
    if kind == "bytes":
        return raw
    limit = {"bool": 1, "int32": 1 << 31, "int64": 1 << 63}[kind]
    signed = raw - (1 << 64) if raw >= 1 << 63 else raw
    if not (0 <= raw <= 1 if kind == "bool" else -limit <= signed < limit):
        raise InvalidModel(f"{raw} is not a value of type {kind}")
    return signed


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidModel(f"{raw[:20]!r} is not UTF-8") from None

"""Checks the files of a saved model before Paddle loads them.

Paddle does what a program says, and trusts its files: an operator can write a file anywhere, and an id that
is outside an embedding table or a truncated file of parameters crashes the process. So a model is loaded only
if its operators are among those that the project's models consist of, if all ids that its signature admits
lie inside its tables, and if the parameters are those that the program declares.

Both profiles use this file, see `ecrs.serving.signature`: Python 3.9, standard library and numpy only.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import IO

import numpy as np

from ecrs.serving.program import FLOAT32, INT64, InvalidModel, Operator, Program, Variable, tensor_type
from ecrs.serving.signature import ModelSignature

PROGRAM, PARAMETERS = "inference.pdmodel", "inference.pdiparams"
LAYOUT = "serving_server_conf.prototxt"
MODEL_FILES = {PROGRAM, PARAMETERS, LAYOUT, "serving_client_conf.prototxt", "signature.json"}
"""The files of a model. Paddle Serving would load others instead, such as `__model__`, if there were any."""

OPERATORS = {
    *("feed", "fetch", "slice", "concat", "unsqueeze2", "reshape2", "flatten_contiguous_range", "cast"),
    *("fill_constant", "lookup_table_v2", "matmul_v2", "reduce_sum", "scale", "not_equal", "clip"),
    *("elementwise_add", "elementwise_mul", "elementwise_div", "elementwise_floordiv"),
    *("exp", "sqrt", "relu", "sigmoid"),
}
"""The operators of the towers and of both rankers. None of them reads or writes anything but tensors."""

TEXTS = {b"", b"/"}
"""Values of text attributes. Nothing that an operator needs is a text, so none may hold a path."""

MAX_PROGRAM_BYTES = 1 << 20
MAX_DESCRIPTION_BYTES = 1 << 10
"""Longest description of a tensor in the file of parameters."""
_ITEM_BYTES = {INT64: 8, FLOAT32: 4}


def check_model(model_dir: Path, signature: ModelSignature) -> str:
    """Check the files of a model, and return the name of its output variable.

    Raises InvalidModel, or OSError if a file cannot be read.
    """
    names = {entry.name for entry in os.scandir(model_dir) if entry.is_file(follow_symlinks=False)}
    if names != MODEL_FILES or len(os.listdir(model_dir)) != len(MODEL_FILES):
        raise InvalidModel(f"{model_dir}: its files are not exactly {', '.join(sorted(MODEL_FILES))}")
    path = model_dir / PROGRAM
    try:
        if path.stat().st_size > MAX_PROGRAM_BYTES:
            raise InvalidModel(f"more than {MAX_PROGRAM_BYTES} bytes")
        program = Program.parse(path.read_bytes())
        _check_operators(program)
        output = _check_signature(program, signature)
        path = model_dir / PARAMETERS
        constants = _read_parameters(path, program)
        path = model_dir / PROGRAM
        _check_lookups(program, signature, constants)
        path = model_dir / LAYOUT
        if path.stat().st_size > MAX_PROGRAM_BYTES or path.read_bytes() != signature.layout(output).encode():
            raise InvalidModel(f"does not name input {signature.feed!r} and output {signature.fetch!r}")
    except ValueError as error:
        raise InvalidModel(f"{path}: {error}") from error
    return output


def _check_operators(program: Program) -> None:
    """Check that each operator is known, has no texts, and writes a tensor that nothing else writes."""
    written: set[str] = set()
    for operator in program.operators:
        if operator.type not in OPERATORS:
            raise InvalidModel(f"the operator {operator.type!r} is not allowed")
        for name, value in operator.attributes.items():
            texts = value if isinstance(value, list) else [value]
            if any(isinstance(text, bytes) and text not in TEXTS for text in texts):
                raise InvalidModel(f"operator {operator.type}: the attribute {name!r} has a text")
        if operator.type == "fill_constant" and operator.attributes.get("shape"):
            raise InvalidModel("operator fill_constant makes a tensor, which could fill the memory")
        for name in (name for names in operator.outputs.values() for name in names):
            variable = program.variables.get(name)
            if operator.type == "fetch" and variable is None:
                continue
            if variable is None or variable.is_parameter or name in written:
                raise InvalidModel(f"operator {operator.type} must not write {name!r}")
            written.add(name)


def _check_signature(program: Program, signature: ModelSignature) -> str:
    """Check that input and output are those of the signature, and return the name of the output."""
    feeds = [operator.outputs for operator in program.operators if operator.type == "feed"]
    fetches = [operator.inputs for operator in program.operators if operator.type == "fetch"]
    if feeds != [{"Out": [signature.feed]}]:
        raise InvalidModel(f"{signature.feed!r} is not its only input")
    if len(fetches) != 1 or list(fetches[0]) != ["X"] or len(fetches[0]["X"]) != 1:
        raise InvalidModel("it has no output, or several")
    (output,) = fetches[0]["X"]
    for name, dtype, columns in (
        (signature.feed, INT64, len(signature.columns)),
        (output, FLOAT32, signature.width),
    ):
        if program.variables.get(name) != Variable(dtype, (-1, columns), is_parameter=False):
            raise InvalidModel(f"{name!r} does not have the type and the {columns} columns of the signature")
    return output


# ---- The file of parameters ---------------------------------------------------------------------


def _read_parameters(path: Path, program: Program) -> dict[str, np.ndarray]:
    """Check that a file holds exactly the parameters of the program, and return those of integers.

    Per parameter, in the order of the names: uint32 0, uint64 0 (levels of detail), uint32 0, int32 length of
    the TensorDesc, the TensorDesc, the values.
    """
    integers: dict[str, np.ndarray] = {}
    parameters = {name: variable for name, variable in program.variables.items() if variable.is_parameter}
    size = path.stat().st_size
    with open(path, "rb") as file:
        for name in sorted(parameters, key=str.encode):
            variable = parameters[name]
            if _read_description(file) != (variable.dtype, variable.shape):
                raise InvalidModel(
                    f"the parameter {name!r} is not of the type and shape that the program declares"
                )
            if variable.dtype not in _ITEM_BYTES or min(variable.shape, default=1) < 1:
                raise InvalidModel(f"the parameter {name!r} is of a type or shape that no model has")
            length = _ITEM_BYTES[variable.dtype] * math.prod(variable.shape)
            if file.tell() + length > size:
                raise InvalidModel(f"truncated in the parameter {name!r}")
            if variable.dtype == INT64:
                integers[name] = np.frombuffer(file.read(length), dtype="<i8").reshape(variable.shape)
            else:
                file.seek(length, os.SEEK_CUR)
        if file.tell() != size:
            raise InvalidModel(f"{size - file.tell()} bytes after the last parameter")
    return integers


def _read_description(file: IO[bytes]) -> tuple[int, tuple[int, ...]]:
    """Read what precedes the values of a parameter: the type of the elements and the shape."""
    header = file.read(20)
    if len(header) < 20:
        raise InvalidModel("truncated")
    version, levels, tensor_version, length = struct.unpack("<IQIi", header)
    if (version, levels, tensor_version) != (0, 0, 0) or not 0 <= length <= MAX_DESCRIPTION_BYTES:
        raise InvalidModel(f"not a file of parameters: {header.hex()}")
    return tensor_type(file.read(length))


# ---- Ids inside the embedding tables ------------------------------------------------------------


def _check_lookups(program: Program, signature: ModelSignature, constants: dict[str, np.ndarray]) -> None:
    """Check that every id that the signature admits is a row of the table in which it is looked up.

    Computes all integers of the program for two inputs, the smallest and the largest valid ids. Each
    operator in _INTEGER_OPERATORS is monotonic, so all other inputs give values in between.
    """
    integers = {name: value for name, value in constants.items() if value.ndim < 2}
    integers[signature.feed] = signature.extremes()
    for operator in program.operators:
        if operator.type == "lookup_table_v2":
            ids = integers.get(_single(operator.inputs, "Ids"))
            table = program.variables.get(_single(operator.inputs, "W"))
            if ids is None:
                raise InvalidModel(f"ids of a table are not computed from {signature.feed!r} alone")
            if table is None or not table.is_parameter or len(table.shape) != 2:
                raise InvalidModel("ids are looked up in something else than a table")
            least, greatest = ids.min(initial=0), ids.max(initial=0)
            if not 0 <= least <= greatest < table.shape[0]:
                raise InvalidModel(f"ids from {least} to {greatest} for a table of {table.shape[0]} rows")
        elif operator.type in _INTEGER_OPERATORS:
            value = _INTEGER_OPERATORS[operator.type](operator, integers)
            if value is not None:
                integers[_single(operator.outputs, "Out")] = value


def _slice(operator: Operator, integers: dict[str, np.ndarray]) -> np.ndarray | None:
    values = _operands(operator, integers, "Input")
    if values is None or values[0].ndim != 2 or operator.attributes.get("axes") != [1]:
        return None
    bounds: list[int] = []
    for name in ("starts", "ends"):
        bound = operator.attributes.get(name)
        if not isinstance(bound, list) or len(bound) != 1 or not isinstance(bound[0], int):
            return None
        bounds.append(bound[0])
    return values[0][:, bounds[0] : bounds[1]]


def _add(operator: Operator, integers: dict[str, np.ndarray]) -> np.ndarray | None:
    values = _operands(operator, integers, "X", "Y")
    return None if values is None or operator.attributes.get("axis") != -1 else values[0] + values[1]


def _floor_divide(operator: Operator, integers: dict[str, np.ndarray]) -> np.ndarray | None:
    values = _operands(operator, integers, "X", "Y")
    if values is None or values[1].ndim == 2 or values[1].min() < 1 or values[0].min() < 0:
        return None
    return values[0] // values[1]


def _scale(operator: Operator, integers: dict[str, np.ndarray]) -> np.ndarray | None:
    values, bias = _operands(operator, integers, "X"), _whole(operator.attributes.get("bias"))
    return (
        None if values is None or bias is None or operator.attributes.get("scale") != 1 else values[0] + bias
    )


def _constant(operator: Operator, integers: dict[str, np.ndarray]) -> np.ndarray | None:
    value, attributes = _whole(operator.attributes.get("value")), operator.attributes
    if operator.inputs or attributes.get("dtype") != INT64 or attributes.get("shape") or value is None:
        return None
    return np.array(value, dtype=np.int64)


def _whole(value: object) -> int | None:
    """Return an attribute of type float as an int if it is a whole number that floats represent exactly."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 24 else None


def _operands(
    operator: Operator, integers: dict[str, np.ndarray], *parameters: str
) -> list[np.ndarray] | None:
    """Return the values of an operator's inputs if it has just these and they are known integers."""
    names = [_single(operator.inputs, parameter) for parameter in parameters]
    if operator.inputs.keys() != {*parameters} or not integers.keys() >= {*names}:
        return None
    return [integers[name] for name in names]


def _single(arguments: dict[str, list[str]], parameter: str) -> str:
    """Return the only variable of a parameter, or the empty string, which names none."""
    names = arguments.get(parameter, [])
    return names[0] if len(names) == 1 else ""


_INTEGER_OPERATORS = {
    "slice": _slice,
    "elementwise_add": _add,
    "elementwise_floordiv": _floor_divide,
    "scale": _scale,
    "fill_constant": _constant,
}
"""The operators whose results can be ids. They return None for anything that is not a known integer."""

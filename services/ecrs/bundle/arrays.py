"""Reads arrays of numbers: `.npy` files, and `.npz` files, which are archives of them.

A file is read only if its header is the one that numpy writes for the expected type and shape. numpy's own
reader accepts more, pickled objects and compressed archives among it.
"""

import math
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ecrs.bundle.errors import BundleError

Shape = tuple[int | None, ...]
"""An expected shape; None stands for any length."""

Range = tuple[float, float]
"""The least and the greatest value that is expected."""

FINITE: Range = (float(np.finfo("float32").min), float(np.finfo("float32").max))
"""The range of all float32 but infinity."""

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?s:..)\{'descr': '(\|[biu]1|<[iu][248]|<f[248])', "
    rb"'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n"
)
MAX_HEADER_BYTES = 128
"""Length of the headers of arrays with few dimensions: numpy fills them up to a multiple of 64 bytes."""
MAX_DIMENSIONS = 4


def read_array(
    path: Path, dtype: str, shape: Shape, *, values: Range | None = None, mapped: bool = False
) -> np.ndarray:
    """Read a `.npy` file. With `mapped`, the array is a read-only view of the file, which processes share.

    Raises BundleError, with what was found and what was expected, unless the file holds an array of type
    `dtype` and of this shape, and, with `values`, all numbers in this range.
    """
    try:
        with open(path, "rb") as file:
            found_dtype, found_shape, start = _read_header(file)
            size = path.stat().st_size
            _check(found_dtype, found_shape, dtype, shape)
            if size != start + found_dtype.itemsize * math.prod(found_shape):
                raise ValueError(f"{size} bytes are not those of shape {found_shape}")
            if mapped and size > start:
                # As a plain array: slices of numpy's memmap class would be memmap objects again.
                array = np.asarray(np.memmap(path, found_dtype, "r", start, found_shape))
            else:
                array = np.fromfile(file, found_dtype).reshape(found_shape)
            if values and array.size:
                least, greatest = array.min(), array.max()
                if not (values[0] <= least and greatest <= values[1]):  # also if one is NaN
                    raise ValueError(
                        f"values from {least} to {greatest}, expected {values[0]} to {values[1]}"
                    )
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {error}") from error
    return array


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an `.npz` file, by name. Raises BundleError if it holds anything but numbers.

    The arrays together are no larger than the file.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise ValueError("its entries are larger than the file")
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or not entry.filename.endswith(".npy"):
                    raise ValueError(f"{entry.filename!r} is not an uncompressed .npy file")
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"{name!r} appears twice")
                with archive.open(entry) as file:
                    dtype, shape, _ = _read_header(file)
                    content = file.read()
                if len(content) != dtype.itemsize * math.prod(shape):
                    raise ValueError(f"{name!r}: {len(content)} bytes are not those of shape {shape}")
                arrays[name] = np.frombuffer(content, dtype).reshape(shape)
    except (OSError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: {error}") from error
    return arrays


def check_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[str, Shape]]
) -> None:
    """Raise BundleError, naming `path`, unless `arrays` are the expected ones: name → type and shape."""
    for name in sorted(arrays.keys() ^ expected.keys()):
        raise BundleError(f"{path}: {name!r} is {'missing' if name in expected else 'not expected'}")
    for name, (dtype, shape) in expected.items():
        try:
            _check(arrays[name].dtype, arrays[name].shape, dtype, shape)
        except ValueError as error:
            raise BundleError(f"{path}: {name}: {error}") from error


def _read_header(file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Read the header of a `.npy` file. Returns type and shape of the array and the length of the header."""
    content = file.read(MAX_HEADER_BYTES)
    match = _HEADER.match(content)
    if not match or int.from_bytes(content[8:10], "little") != match.end() - 10:
        raise ValueError("not an array of numbers as numpy saves it")
    dtype = np.dtype(match[1].decode())
    shape = tuple(int(length) for length in match[2].replace(b" ", b"").split(b",") if length)
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{len(shape)} dimensions")
    if match.end() != MAX_HEADER_BYTES:
        raise ValueError("not an array of numbers as numpy saves it")
    return dtype, shape, MAX_HEADER_BYTES


def _check(dtype: np.dtype[Any], shape: tuple[int, ...], expected_dtype: str, expected: Shape) -> None:
    if dtype != np.dtype(expected_dtype):
        raise ValueError(f"{dtype}, expected {expected_dtype}")
    if len(shape) != len(expected) or any(
        want is not None and have != want for have, want in zip(shape, expected, strict=True)
    ):
        lengths = ", ".join("n" if want is None else str(want) for want in expected)
        raise ValueError(f"shape {shape}, expected ({lengths}{',' if len(expected) == 1 else ''})")

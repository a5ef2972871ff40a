"""The signature of a served model: its input, its output, and the guard that checks its input.

Both profiles use this file: `ecrs` imports it, and the Paddle Serving image, which has Python 3.9 and not
the rest of the `ecrs` package, contains a copy. Therefore it imports only numpy and the standard library, and
uses only syntax that Python 3.9 can parse.

The guard exists because Paddle does not check its input: an empty batch crashes it, and an id outside an
embedding table reads foreign memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_ROWS = 1000
"""Largest batch that a model accepts."""


MAX_COUNT = 1 << 31
"""Upper bound of the numbers in a signature."""
_INT64, _FLOAT32 = 0, 1
"""Paddle Serving's numbers of these types."""


class InvalidInput(ValueError):
    """The ids do not match the model's signature; the text gives the reason."""


@dataclass(frozen=True)
class ModelSignature:
    """The signature of a model: one int64 matrix as input, one float32 matrix as output.

    `feed` names the input, int64, shape (N, len(columns)) with 1 ≤ N ≤ MAX_ROWS; column j is in
    [0, cardinality[j]). `fetch` names the output, float32, shape (N, width).
    """

    model: str
    version: str
    feed: str
    fetch: str
    columns: tuple[str, ...]
    cardinality: tuple[int, ...]
    width: int

    @classmethod
    def load(cls, model_dir: str | Path) -> ModelSignature:
        """Read `signature.json` in `model_dir`; OSError if it cannot be read, ValueError if invalid."""
        path = Path(model_dir) / "signature.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            signature = cls(
                **{name: _text(raw[name]) for name in ("model", "version", "feed", "fetch")},
                columns=tuple(_text(name) for name in raw["columns"]),
                cardinality=tuple(_count(bound) for bound in raw["cardinality"]),
                width=_count(raw["width"]),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a model signature: {error!r}") from error
        if len(signature.columns) != len(signature.cardinality):
            raise ValueError(f"{path}: {len(signature.columns)} columns, {len(signature.cardinality)} bounds")
        return signature

    def save(self, model_dir: str | Path) -> None:
        """Write `signature.json` into a model directory."""
        path = Path(model_dir) / "signature.json"
        path.write_text(json.dumps(self.__dict__, indent=1), encoding="utf-8")

    def layout(self, output: str) -> str:
        """Return Paddle Serving's GeneralModelConfig in text format, which server and client read.

        `output`: name of the program's output variable.
        """
        return (
            f'feed_var {{\n  name: "{self.feed}"\n  alias_name: "{self.feed}"\n'
            f"  is_lod_tensor: false\n  feed_type: {_INT64}\n  shape: {len(self.columns)}\n}}\n"
            f'fetch_var {{\n  name: "{output}"\n  alias_name: "{self.fetch}"\n'
            f"  is_lod_tensor: false\n  fetch_type: {_FLOAT32}\n  shape: {self.width}\n}}\n"
        )

    def extremes(self) -> np.ndarray:
        """Return the smallest and the largest valid ids: int64, shape (2, len(columns))."""
        largest = np.array(self.cardinality, dtype=np.int64) - 1
        return np.stack([np.zeros_like(largest), largest])

    def check(self, ids: np.ndarray) -> np.ndarray:
        """Return the ids as a C-contiguous int64 matrix that is safe to feed to the model.

        Raises InvalidInput for an empty or oversized batch, a wrong shape or type, or an id outside the range
        of its column.
        """
        ids = np.asarray(ids)
        if not np.issubdtype(ids.dtype, np.integer):
            raise InvalidInput(f"{self.feed}: expected int64, got {ids.dtype}")
        if ids.ndim != 2 or ids.shape[1] != len(self.columns):
            raise InvalidInput(f"{self.feed}: expected shape [N, {len(self.columns)}], got {list(ids.shape)}")
        if not 1 <= len(ids) <= MAX_ROWS:
            raise InvalidInput(f"{self.feed}: expected 1 to {MAX_ROWS} rows, got {len(ids)}")
        outside = (ids < 0) | (ids >= np.asarray(self.cardinality, dtype=np.int64))
        if outside.any():
            row, column = (int(index) for index in np.argwhere(outside)[0])
            raise InvalidInput(
                f"{self.feed}: row {row}, {self.columns[column]}: id {int(ids[row, column])} is not in "
                f"[0, {self.cardinality[column]})"
            )
        return np.ascontiguousarray(ids, dtype=np.int64)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or '"' in value:
        raise ValueError(f"{value!r:.50} is not a name")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or not 1 <= value < MAX_COUNT:
        raise ValueError(f"{value!r:.50} is not a number from 1")
    return value

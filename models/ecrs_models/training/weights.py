"""Files of weights: the values of a network's parameters by name, in numpy's `.npz`, which holds numbers.

Paddle's own format is a pickle: loading it executes whatever it contains.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.bundle.arrays import read_arrays

Weights = dict[str, np.ndarray]
"""Name of a parameter → its values."""


def weights_path(directory: Path, name: str) -> Path:
    """Return the path of the weights of model `name`."""
    return directory / f"{name}.npz"


def save_weights(path: Path, state: Mapping[str, Any]) -> None:
    """Write the tensors and arrays of `state` to a file, which is replaced in one step."""
    draft = path.with_name(f".{path.name}.new")
    arrays = {name: np.asarray(value, order="C") for name, value in state.items()}
    with open(draft, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    draft.replace(path)


def load_weights(path: Path) -> Weights:
    """Read the weights in a file. Raises FileNotFoundError, and BundleError if it holds anything else."""
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    return read_arrays(path)

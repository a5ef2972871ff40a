"""Translates disk errors during the writing of data sets and trainings into DataError."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polars.exceptions import ComputeError

from ecrs.bundle import write_fault
from ecrs_models.errors import DataError

_POLARS_REASON = re.compile(r"([^:]+) \(os error \d+\)")
"""Text by which polars reports an operating system error, in an OSError without errno or a ComputeError."""


@contextmanager
def writing_to(directory: Path) -> Iterator[None]:
    """Raise DataError, with the reason and the free bytes, if the body fails to write to `directory`."""
    try:
        yield
    except (OSError, ComputeError) as error:
        match = _POLARS_REASON.search(str(error))
        if match:
            reason = match[1].strip()
        elif isinstance(error, OSError):
            reason = error.strerror or str(error)
        else:
            raise
        raise DataError(write_fault(directory, reason)) from error

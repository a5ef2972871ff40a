"""Errors of the disk while data sets and trainings are written, as DataError."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polars.exceptions import ComputeError

from ecrs.bundle import write_fault
from ecrs_models.errors import DataError

_POLARS_REASON = re.compile(r"([^:]+) \(os error \d+\)")
"""How polars reports an error of the operating system, in an OSError without errno or in a ComputeError."""


@contextmanager
def writing_to(directory: Path) -> Iterator[None]:
    """Raise DataError, with the reason and the free bytes, if what the body writes to `directory` fails."""
    try:
        yield
    except (OSError, ComputeError) as error:
        found = _POLARS_REASON.search(str(error))
        if found:
            reason = found[1].strip()
        elif isinstance(error, OSError):
            reason = error.strerror or str(error)
        else:
            raise
        raise DataError(write_fault(directory, reason)) from error

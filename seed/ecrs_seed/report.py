"""The result of a seed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SeedReport:
    """Result of a seed; as a string, the line to print.

    `rows`: number of rows written or, with `already_there`, of rows that the store has. `removed`: number of
    stale keys removed, such as those of other bundles.
    """

    store: str
    version: str
    rows: int
    took_s: float
    already_there: bool = False
    removed: int = 0

    def __str__(self) -> str:
        if self.already_there:
            return f"{self.store}: version {self.version} is already loaded, checked in {self.took_s:.1f} s"
        rate = self.rows / max(self.took_s, 1e-9)
        written = f"{self.rows:,} rows in {self.took_s:.1f} s ({rate:,.0f} rows/s)"
        removed = f", {self.removed:,} stale keys removed" if self.removed else ""
        return f"{self.store}: version {self.version}, {written}{removed}"

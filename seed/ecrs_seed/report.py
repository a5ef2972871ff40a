"""The line that a seed prints."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SeedReport:
    """What a seed wrote, and how many keys of other bundles it removed."""

    store: str
    version: str
    rows: int
    took_s: float
    already_there: bool = False
    removed: int = 0

    def __str__(self) -> str:
        if self.already_there:
            return f"{self.store}: version {self.version} is there already, checked in {self.took_s:.1f} s"
        rate = self.rows / max(self.took_s, 1e-9)
        wrote = f"{self.rows:,} rows in {self.took_s:.1f} s ({rate:,.0f} rows/s)"
        removed = f", {self.removed:,} stale keys removed" if self.removed else ""
        return f"{self.store}: version {self.version}, {wrote}{removed}"

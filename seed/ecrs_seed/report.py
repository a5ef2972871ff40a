"""What a seed did, in one line."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SeedReport:
    store: str
    version: str
    rows: int
    took_s: float
    already_there: bool = False

    def __str__(self) -> str:
        if self.already_there:
            return f"{self.store}: version {self.version} is there already, checked in {self.took_s:.1f} s"
        rate = self.rows / max(self.took_s, 1e-9)
        wrote = f"{self.rows:,} rows in {self.took_s:.1f} s ({rate:,.0f} rows/s)"
        return f"{self.store}: version {self.version}, {wrote}"

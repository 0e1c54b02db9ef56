"""Days: which part of the corpus a run takes in."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Days:
    """The days from `first` to `last`, both included; None leaves that side open."""

    first: date | None = None
    last: date | None = None

    def condition(self, column: str) -> str:
        """Return the SQL condition for a column of dates."""
        bounds = [f"{column} >= DATE '{self.first}'"] if self.first else []
        bounds += [f"{column} <= DATE '{self.last}'"] if self.last else []
        return " AND ".join(bounds) or "true"


ALL_DAYS = Days()

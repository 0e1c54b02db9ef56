"""What one update of a dataset did."""

from dataclasses import dataclass, field
from datetime import date, datetime


@dataclass
class Counts:
    """Row counts of one dataset in one run; the columns of lineage.runs.

    Attributes:
        dataset: its name.
        recipe: hash of the code, parameters and versions that make it.
        rows_in: inputs of the stage (rows of the dataset above).
        rows_added, rows_changed, rows_removed: rows of the dataset, against what it was before.
        decisions_changed: documents dropped before and after, by another rule, score or kept document.
        rows_reused: inputs whose result was known.
        rows_computed: inputs that the stage function was called for.
        rows_waiting: documents that came, changed or went on days that the run did not take in.
        rows: rows of the dataset afterwards.
        errors: rows of lineage.errors at this stage afterwards.
        seconds: wall time of the update.
        state_hash: order-free hash of the dataset's rows.
        days: the days of raw rows that came, changed or went.
        warnings: lines that a person should see.
        engine: what the engine that computed says of it, as text; empty where it is this machine.
    """

    dataset: str
    recipe: str
    started_at: datetime
    finished_at: datetime | None = None
    rows_in: int = 0
    rows_added: int = 0
    rows_changed: int = 0
    rows_removed: int = 0
    decisions_changed: int = 0
    rows_reused: int = 0
    rows_computed: int = 0
    rows_waiting: int = 0
    rows: int = 0
    errors: int = 0
    seconds: float = 0.0
    state_hash: str = ""
    days: set[date] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    engine: str = ""

    @property
    def touched(self) -> bool:
        """Whether the dataset, or why a document is not in it, differs from before."""
        return bool(self.rows_added or self.rows_changed or self.rows_removed or self.decisions_changed)

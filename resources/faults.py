"""What a disk, a right or a damaged file did to a run, told in one line that names the file and what to do."""

import errno
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb

from stemma.errors import StemmaError
from stemma.resources.warehouse import Warehouse, first_line

# As the system says it in errors of Python, and DuckDB in its own.
FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large|max_temp_directory_size", re.I)
FORBIDDEN = re.compile(r"Read-only file system|Permission denied|Operation not permitted", re.I)
DAMAGED = re.compile(
    r"Corrupt database file|Could not read enough bytes|not a valid DuckDB|Input/output error", re.I
)
ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
KEPT = "What is published stays as it was, and what has been computed is kept"


def told(error: Exception, warehouse: Warehouse) -> Exception:
    """Return the error that a person is to see: this one, where it is none of storage."""
    if isinstance(error, StemmaError) or not _is_of_storage(error):
        return error
    place = _place(error, warehouse)
    if reason := _line(error, FULL):
        return StemmaError(f"{place}: no space left ({reason}). {KEPT}: free space and run again")
    if reason := _line(error, FORBIDDEN):
        return StemmaError(
            f"{place}: cannot be written or read ({reason}). {KEPT}: give rights and run again"
        )
    if DAMAGED.search(str(error)):
        for path, advice in _databases(warehouse):
            if path.exists() and (fault := database_fault(path)):
                return StemmaError(f"{path}: damaged ({fault}); {advice}")
        return StemmaError(f"{place}: {first_line(error)}. {KEPT}")
    return error


def is_damage(error: Exception) -> bool:
    """Tell whether DuckDB says that a file of its own is damaged."""
    return isinstance(error, duckdb.Error) and DAMAGED.search(str(error)) is not None


def _line(error: Exception, pattern: re.Pattern[str]) -> str | None:
    """Return what of an error says so, if anything does; DuckDB's first line may be about what came of it."""
    found = next((line.strip() for line in str(error).splitlines() if pattern.search(line)), None)
    return getattr(error, "strerror", None) or found if found else None


def _is_of_storage(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in ERRNOS
    return isinstance(error, duckdb.Error) and not isinstance(error, duckdb.InterruptException)


def _place(error: Exception, warehouse: Warehouse) -> str:
    """Return the file that an error names, else the folder that was written to."""
    named = getattr(error, "filename", None) or next(iter(re.findall(r'"(/[^"]+)"', str(error))), None)
    return str(named or warehouse.folder)


def _databases(warehouse: Warehouse) -> Iterator[tuple[Path, str]]:
    yield (
        warehouse.state_path,
        "move it away and run again: it is made anew from sources and memo (see docs/operations.md, 'A damaged state')",
    )
    yield warehouse.path, "move it away and run again: it is made anew from the state"


def database_fault(path: Path) -> str | None:
    """Read all of a DuckDB file; returns what is wrong with it, None where nothing is, or another process has it."""
    try:
        with duckdb.connect(str(path), read_only=True, config={"memory_limit": "1GB"}) as connection:
            for schema, name in connection.execute(
                "SELECT schema_name, table_name FROM duckdb_tables()"
            ).fetchall():
                connection.execute(
                    f'SELECT sum(hash(COLUMNS(*))::HUGEINT) FROM "{schema}"."{name}"'
                ).fetchall()
    except (duckdb.IOException, duckdb.SerializationException, duckdb.FatalException) as error:
        return None if "set lock" in str(error) else first_line(error)
    return None

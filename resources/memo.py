"""The memo: results by content, in immutable Parquet segments that need no lock.

`memo/<stage>/<recipe>/<n>-<digest>.parquet` holds rows of (input_hash, the stage's outputs, error, detail).
A segment is written beside, synced and renamed, so a crash leaves whole segments only; nobody ever changes
one, so any number of processes read and write at once. The same input may stand in two segments when two runs
computed it side by side: look-ups take the first.
"""

import contextlib
import itertools
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stemma.hashing import UUID

# Merging starts past this many segments, so that a stage's look-up opens a few dozen files at most.
MERGE_SEGMENTS = 48
# Segments of this size are left alone: rewriting them would cost more than opening them.
LARGE_SEGMENT_BYTES = 128 * 1024 * 1024
# Up to so many rows are read one row group at a time instead of by a scan.
FETCHED_ROWS = 2048
# Names the segments that a merge has replaced.
RETIRED = "retired.txt"

ERROR_FIELDS = (pa.field("error", pa.string()), pa.field("detail", pa.string()))


def quoted(text: str) -> str:
    """Quote a string as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@dataclass
class _NewSegment:
    """A segment that is being written: where to, and where it stands once it is whole."""

    temporary: Path
    path: Path


class Segments:
    """The memo of one stage under one recipe."""

    def __init__(self, folder: Path, outputs: pa.Schema) -> None:
        self.folder = folder
        self.schema = pa.schema([pa.field("input_hash", UUID), *outputs, *ERROR_FIELDS])

    def files(self) -> list[Path]:
        """Return the segments, oldest first."""
        if not self.folder.is_dir():
            return []
        retired = self._retired()
        return sorted(
            path for path in self.folder.iterdir() if path.suffix == ".parquet" and path.name not in retired
        )

    def append(self, rows: pa.Table) -> pa.Table:
        """Commit rows (columns as in `schema`) as one segment; durable when this returns.

        Returns their places, with the columns that `locate` gives.
        """
        place = ""
        if rows.num_rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._new_segment() as segment:
                pq.write_table(
                    rows.cast(self.schema), segment.temporary, compression="lz4", use_dictionary=False
                )
            place = str(segment.path)
        return pa.table(
            {
                "input_hash": rows["input_hash"],
                "filename": pa.array([place] * rows.num_rows, pa.string()),
                "file_row_number": pa.array(range(rows.num_rows), pa.int64()),
                "error": rows["error"],
                "detail": rows["detail"],
            }
        )

    def scan(self, columns: str = "*") -> str:
        """Return a SQL relation over all rows, with `filename` and `file_row_number`; empty without segments."""
        files = self.files()
        if not files:
            names = ", ".join(f"NULL::{_duckdb_type(field.type)} AS {field.name}" for field in self.schema)
            return (
                f"(SELECT {columns} FROM (SELECT {names}, NULL::VARCHAR AS filename,"
                " NULL::BIGINT AS file_row_number) WHERE false)"
            )
        names = ", ".join(quoted(str(path)) for path in files)
        return (
            f"(SELECT {columns} FROM read_parquet([{names}], filename=true, file_row_number=true,"
            " hive_partitioning=false))"
        )

    def locate(
        self, connection: duckdb.DuckDBPyConnection, keys: str, into: str, *, temporary: bool = False
    ) -> None:
        """Make the table `into` (input_hash, filename, file_row_number, error, detail).

        It has one row for each distinct input_hash of the relation `keys` that the memo knows. Ask for a
        temporary table inside a transaction that writes to the state; cursors cannot see it.
        """
        kind = "TEMP TABLE" if temporary else "TABLE"
        self._retrying(
            connection,
            lambda: (
                f"""
            CREATE OR REPLACE {kind} {into} AS
            SELECT DISTINCT ON (input_hash) input_hash, filename, file_row_number, error, detail
            FROM {self.scan("input_hash, filename, file_row_number, error, detail")} AS memo
            SEMI JOIN {keys} AS wanted USING (input_hash)"""
            ),
        )

    def bodies(self, connection: duckdb.DuckDBPyConnection, located: str, columns: str) -> str:
        """Return a SQL relation of `columns` for the rows that `locate` put into the table `located`.

        A few rows are read from just the row groups that hold them, so that what a change needs of a large memo
        costs no scan of it; many are scanned.
        """
        places = connection.execute(
            f"SELECT filename, file_row_number FROM {located} ORDER BY ALL"
        ).fetchmany(FETCHED_ROWS + 1)
        if len(places) <= FETCHED_ROWS:
            name = f"fetched_{self.folder.parent.name}"
            # A table of DuckDB's own: its filter pushdown into Arrow tables does not know UUIDs.
            connection.register("fetched", self._fetch(places, columns))
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM fetched")
            connection.unregister("fetched")
            return f"(SELECT {columns} FROM {name})"
        return f"""(SELECT {columns} FROM {self.scan()} AS memo SEMI JOIN {located} AS place
            ON memo.filename = place.filename AND memo.file_row_number = place.file_row_number)"""

    def _fetch(self, places: list[tuple[str, int]], columns: str) -> pa.Table:
        names = [field.name for field in self.schema if re.search(rf"\b{field.name}\b", columns)]
        schema = pa.schema([self.schema.field(name) for name in names])
        tables = [schema.empty_table()]
        for filename, numbers in itertools.groupby(places, key=lambda place: place[0]):
            rows = np.array([number for _filename, number in numbers])
            tables.append(_take_rows(Path(filename), rows, names).cast(schema))
        return pa.concat_tables(tables)

    def known(self, connection: duckdb.DuckDBPyConnection) -> pa.Table:
        """Return the distinct keys as a table of one binary(16) column `input_hash`."""
        table = connection.execute(
            f"SELECT DISTINCT input_hash FROM {self.scan('input_hash')}"
        ).to_arrow_table()
        return pa.table({"input_hash": table["input_hash"].cast(pa.binary(16))}) if table.num_rows else table

    def merge(self) -> int:
        """Merge small segments into one when there are many; return how many were merged.

        The merged ones are retired: nobody finds them from now on, and the next merge deletes them. Until then
        a process that has found them already can read them.
        """
        small = [path for path in self.files() if path.stat().st_size < LARGE_SEGMENT_BYTES]
        if len(small) <= MERGE_SEGMENTS:
            return 0
        gone = self._retired()
        with self._new_segment() as segment:
            with pq.ParquetWriter(
                segment.temporary, self.schema, compression="lz4", use_dictionary=False
            ) as writer:
                for path in small:
                    with pq.ParquetFile(path) as small_file:
                        # Row groups stay as small as batches were: `_take_rows` reads them one by one.
                        for group in range(small_file.num_row_groups):
                            writer.write_table(small_file.read_row_group(group).cast(self.schema))
        listing = self.folder / f".{uuid.uuid4().hex}.tmp"
        listing.write_text("\n".join(path.name for path in small), encoding="utf-8")
        os.replace(listing, self.folder / RETIRED)
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        return len(small)

    def _retired(self) -> set[str]:
        try:
            return set((self.folder / RETIRED).read_text(encoding="utf-8").split("\n"))
        except FileNotFoundError:
            return set()

    @contextlib.contextmanager
    def _new_segment(self) -> Iterator["_NewSegment"]:
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        segment = _NewSegment(temporary, temporary)
        try:
            yield segment
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            segment.path = self.folder / f"{_sequence(self.files()):08d}-{uuid.uuid4().hex[:12]}.parquet"
            os.replace(temporary, segment.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _retrying(self, connection: duckdb.DuckDBPyConnection, statement) -> None:  # type: ignore[no-untyped-def]
        # Another process may merge segments between our listing them and opening them.
        for attempt in range(3):
            try:
                connection.execute(statement())
                return
            except duckdb.IOException:
                if attempt == 2:
                    raise


def _take_rows(path: Path, rows: np.ndarray, columns: list[str]) -> pa.Table:
    """Read rows (ascending numbers) of a segment, opening only the row groups that hold them."""
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        groups, first = np.unique(np.searchsorted(starts, rows, side="right") - 1, return_index=True)
        tables = []
        for group, part in zip(groups.tolist(), np.split(rows, first[1:]), strict=True):
            tables.append(file.read_row_group(group, columns=columns).take(pa.array(part - starts[group])))
    return pa.concat_tables(tables)


def _sequence(files: list[Path]) -> int:
    return int(files[-1].name.split("-")[0]) + 1 if files else 0


def _duckdb_type(kind: pa.DataType) -> str:
    if kind == UUID:
        return "UUID"
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return f"{_duckdb_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return "STRUCT(" + ", ".join(f'"{field.name}" {_duckdb_type(field.type)}' for field in kind) + ")"
    if pa.types.is_string(kind):
        return "VARCHAR"
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return "BLOB"
    return {
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.float32(): "FLOAT",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
    }[kind]


class Memo:
    """All stages' segments below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def segments(self, stage: str, recipe: str, outputs: pa.Schema) -> Segments:
        """Return the segments of a stage under a recipe; the folder is made with the first of them."""
        return Segments(self.root / stage / recipe, outputs)

    def recipes(self) -> Iterator[tuple[str, str, Path]]:
        """Yield (stage, recipe, folder) of all that the memo holds."""
        for stage in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            for folder in sorted(stage.iterdir()):
                yield stage.name, folder.name, folder

    def size_bytes(self) -> int:
        """Return the bytes on disk."""
        return sum(path.stat().st_size for path in self.root.rglob("*.parquet"))

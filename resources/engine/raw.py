"""raw: read and hash every file, parse those that are new or changed, guard against a vanished source."""

import importlib.metadata
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from stemma.config import SourceConfig
from stemma.errors import StemmaError
from stemma.hashing import UUID, digest, key, uuid_array
from stemma.incremental.counts import Counts
from stemma.incremental.days import ALL_DAYS, Days
from stemma.reading import LIBRARIES, ReadError, Record, read
from stemma.resources.engine.days import hold_back, note_days
from stemma.resources.engine.run import Run, fetch_value, finish, load_rows, state_of
from stemma.resources.engine.setup import Setup
from stemma.resources.handing import execute_over
from stemma.resources.looking import Found, Known, Request, Seen, read_options
from stemma.resources.memo import Segments
from stemma.resources.purges import NO_PURGES, Purge, Purges, file_id, read_purges, write_purges
from stemma.resources.sources import FileEntry, ListingError, list_files
from stemma.resources.warehouse import utc_now

BODIES = pa.schema(
    [
        pa.field("content", pa.string()),
        pa.field("content_bytes", pa.binary()),
        pa.field("media_type", pa.string()),
    ]
)
# The one store that is keyed by content alone: what was read doesn't depend on how it is processed.
BODIES_RECIPE = "content"

ROWS = pa.schema(
    [
        pa.field("document_id", UUID),
        pa.field("source", pa.string()),
        pa.field("path", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("record", pa.string()),
        pa.field("byte_start", pa.int64()),
        pa.field("byte_end", pa.int64()),
        pa.field("media_type", pa.string()),
        pa.field("encoding", pa.string()),
        pa.field("document_date", pa.date32()),
        pa.field("date_from", pa.string()),
        pa.field("content_hash", UUID),
        pa.field("size_bytes", pa.int64()),
        pa.field("ingested_at", pa.timestamp("us")),
        pa.field("partition_date", pa.date32()),
        pa.field("title", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("fields", pa.string()),
        pa.field("labels", pa.string()),
        pa.field("input_hash", UUID),
    ]
)
FILES = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("path", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("file_hash", UUID),
        pa.field("reader", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("version", pa.string()),
    ]
)
ERRORS = pa.schema([(name, pa.string()) for name in ("source", "path", "uri", "record", "error", "detail")])

# What of a row a rebuild reproduces: all but ingested_at.
ROW_HASH = (
    "hash(document_id, source, path, uri, record, byte_start, byte_end, media_type, encoding, document_date,"
    " date_from, content_hash, size_bytes, partition_date, title, metadata, fields, labels, input_hash)"
)

FLUSH_ROWS = 512
FLUSH_BYTES = 8 * 1024 * 1024

# A source may lose this many documents, or this share of them, before a person must confirm.
GUARD_DOCUMENTS = 5
GUARD_SHARE = 0.10


def bodies_of(run: Run) -> Segments:
    """Return the store of contents as read, keyed by raw.input_hash."""
    return run.warehouse.memo.segments("read", BODIES_RECIPE, BODIES)


def reader_of(setup: Setup, source: SourceConfig) -> str:
    """Return the recipe of reading one file of a source: the reading code, its libraries and its options."""
    options = json.dumps(asdict(read_options(source)), sort_keys=True)
    return key(setup.code(read), setup.code(_row), *map(_library, LIBRARIES), options).hex()


def _library(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def raw_recipe(setup: Setup) -> str:
    """Return the recipe of raw: how each source, by name, is read and what of it is taken. No paths."""
    parts = [
        f"{source.name}|{reader_of(setup, source)}|{source.include}|{source.exclude}|{source.complete}"
        for source in sorted(setup.config.sources, key=lambda source: source.name)
    ]
    return key("raw", *parts).hex()


@dataclass
class _Delta:
    """What has been read but not yet staged."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[tuple[bytes, Record]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0

    def full(self) -> bool:
        return len(self.rows) >= FLUSH_ROWS or self.size >= FLUSH_BYTES


@dataclass
class _Scan:
    """What the listing and reading found, for the last step: deletions, moves and errors."""

    purges: Purges
    fingerprint: str
    listed: list[tuple[str, str]] = field(default_factory=list)
    unlisted: list[tuple[str, str]] = field(default_factory=list)
    read: list[tuple[str, str]] = field(default_factory=list)
    put_off: list[tuple[str, str]] = field(default_factory=list)
    moved: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    stored: set[bytes] | None = None
    is_passing: bool = False
    seen: tuple[str, int] = ("", 0)


def update_raw(run: Run) -> Counts:
    """Bring raw up to date with the sources.

    Raises StemmaError when a source cannot be listed, a query fails, or more of a source's documents would vanish
    than max(5, 10 %) and deletes were not allowed; then nothing has been deleted.
    """
    sources = run.config.sources
    if not sources:
        raise StemmaError(
            "no sources: name a path ('stemma run PATH') or add [[sources]] to stemma.toml (see docs/configuration.md)"
        )
    counts = run.begin("raw", raw_recipe(run.setup))
    while not _try_update(run, counts):
        pass
    return counts


def _try_update(run: Run, counts: Counts) -> bool:
    """List, read and settle; returns whether it was settled, as `_settle` does."""
    known, seen, purges = _known_files(run)
    listings = list_sources(run, purges)
    total = sum(len(files) for _source, files, _problems in listings)
    _memory_table(run.warehouse.connection, "incoming_rows", ROWS.empty_table())
    _memory_table(run.warehouse.connection, "incoming_files", FILES.empty_table())
    scan, delta, done = _Scan(purges, listing_fingerprint(listings), seen=seen), _Delta(), 0
    requests = _requests(run, listings, known, scan)
    run.progress("raw", 0, total)
    for request, found in run.executor.read(requests):
        _take(run, counts, request, found, scan, delta)
        if isinstance(found, Seen) and found.is_last:
            done += 1
            if done % 500 == 0:
                run.progress("raw", done, total)
    run.progress("raw", total, total)
    _flush(run, delta)
    return _settle(run, counts, scan)


def _requests(
    run: Run, listings: "Listed", known: dict[tuple[str, str], Known], scan: _Scan
) -> Iterator[Request]:
    """Yield the files that must be looked at; note what listing them said."""
    for source, files, problems in listings:
        reader = reader_of(run.setup, source)
        scan.errors += [_listing_error(source, problem) for problem in problems]
        scan.unlisted += [(source.name, problem.below) for problem in problems if problem.below is not None]
        for entry in files:
            place = (source.name, entry.relative)
            scan.listed.append(place)
            before = known.get(place)
            if source.trust_mtime and before and before.reader == reader and before.vouches_for(entry):
                if before.uri != entry.uri:
                    scan.moved.append(_file_row(source, entry, before.file_hash, reader))
            else:
                yield Request(source, reader, entry, before, _folders_of(run, source))


Listed = list[tuple[SourceConfig, list[FileEntry], list[ListingError]]]


def list_sources(run: Run, purges: Purges = NO_PURGES) -> Listed:
    """Return each source with its files and what could not be listed. Raises StemmaError as `list_files` does.

    The file of the settings is no document. Files that were purged as a whole are left out, and so never opened.
    """
    settings = [run.config.file] if run.config.file else []
    left_out = (*run.warehouse.own_paths, *settings, *run.left_out)
    listings = [(source, *_listing(source, left_out)) for source in _chosen(run)]
    if purges:
        out = purges.documents
        listings = [
            (source, [file for file in files if file_id(source.name, file.relative) not in out], errors)
            for source, files, errors in listings
        ]
    if run.share < 1:
        return [
            (source, [file for file in files if _sampled(run, file)], errors)
            for source, files, errors in listings
        ]
    return listings


def _chosen(run: Run) -> list[SourceConfig]:
    """Return the sources that the run reads. Raises StemmaError for a name that no source has."""
    names = [source.name for source in run.config.sources]
    for name in run.sources:
        if name not in names:
            raise StemmaError(f"there is no source '{name}'; there are {', '.join(names)}")
    return [source for source in run.config.sources if not run.sources or source.name in run.sources]


def _sampled(run: Run, file: FileEntry) -> bool:
    return int.from_bytes(key(f"sample {run.sample}", file.uri)[:4]) < run.share * 2**32


def _listing(source: SourceConfig, left_out: tuple[Path, ...]) -> tuple[list[FileEntry], list[ListingError]]:
    files: list[FileEntry] = []
    problems: list[ListingError] = []
    for item in list_files(source, left_out):
        if isinstance(item, ListingError):
            problems.append(item)
        else:
            files.append(item)
    return files, problems


def listing_fingerprint(listings: Listed) -> str:
    """Return a hash of what listing says of the sources: places, sizes, times and versions of files, and errors."""
    facts: list[str] = []
    for source, files, problems in listings:
        facts += [f"{source.name}|{file.uri}|{file.size}|{file.mtime_ns}|{file.version}" for file in files]
        facts += [f"{source.name}|{problem.uri}|{problem.error}" for problem in problems]
    return key(*sorted(facts)).hex()


def _listing_error(source: SourceConfig, problem: ListingError) -> dict[str, Any]:
    return {
        "source": source.name,
        "path": problem.uri,
        "uri": problem.uri,
        "record": None,
        "error": problem.error,
        "detail": problem.detail,
    }


def _known_files(run: Run) -> tuple[dict[tuple[str, str], Known], tuple[str, int], Purges]:
    """Return the files that the state knows, what `_last_settled` says of that state, and what was purged."""
    with run.warehouse.session() as connection:
        seen = _last_settled(connection)
        purges = current_purges(run, connection)
        if _purged_in(connection) - {row.document_id for row in purges.rows}:
            # Something was taken from the list, and may come back: what files hold is to be looked at anew.
            return {}, seen, purges
        table = connection.execute(
            "SELECT source, path, file_hash, reader, uri, size, mtime_ns, version FROM state.files"
        ).to_arrow_table()
    hashes = table["file_hash"].combine_chunks()
    columns = [column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)]
    columns[2] = (hashes.storage if table.num_rows else hashes).to_pylist()
    return {(row[0], row[1]): Known(*row[2:]) for row in zip(*columns, strict=True)}, seen, purges


def current_purges(run: Run, connection: duckdb.DuckDBPyConnection) -> Purges:
    """Return the list of what was purged, within a session. Where the file was lost, the state makes it anew."""
    purges = read_purges(run.warehouse.purges_path)
    if purges is None:
        rows = connection.execute("FROM state.purged ORDER BY purged_at, document_id").fetchall()
        purges = Purges(tuple(Purge(*row) for row in rows))
        if purges and not run.dry:
            write_purges(run.warehouse.purges_path, purges.rows)
    return purges


def _purged_in(connection: duckdb.DuckDBPyConnection) -> set[uuid.UUID]:
    return {row[0] for row in connection.execute("SELECT document_id FROM state.purged").fetchall()}


def are_applied(run: Run, connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether the list of what was purged is the one that the state has applied."""
    now = {row.document_id for row in current_purges(run, connection).rows}
    return now == _purged_in(connection)


def update_purged(run: Run, counts: Counts) -> None:
    """Bring raw up to date with the list of what was purged, without looking at a source.

    Raises StemmaError where there is no state to do it in, or one of another recipe: that takes a whole run.
    """
    with run.warehouse.session() as connection:
        before = state_of(connection, "raw")
        if before.recipe != counts.recipe:
            raise StemmaError("raw was made with other settings")
        _apply_purges(connection, counts, current_purges(run, connection))
        counts.rows_in = counts.rows_reused = fetch_value(connection, "SELECT count(*) FROM state.raw")
        finish(run, connection, counts, upstream_version=0)


def _apply_purges(connection: duckdb.DuckDBPyConnection, counts: Counts, purges: Purges) -> None:
    """Take out of the state what was purged: documents, those that wait, files, errors and versions."""
    if not purges and not _purged_in(connection):
        return
    load_rows(connection, "purged_now", purges.table())
    connection.execute("DELETE FROM state.purged")
    connection.execute("INSERT INTO state.purged FROM purged_now")
    if not purges:
        return
    places = connection.execute(
        """SELECT DISTINCT source, path FROM (SELECT source, path FROM state.files UNION ALL
        SELECT source, path FROM state.raw UNION ALL SELECT source, path FROM state.errors
        UNION ALL SELECT source, path FROM state.waiting)"""
    ).fetchall()
    out = purges.documents
    files = [place for place in places if file_id(*place) in out]
    load_rows(connection, "purged_files", _pairs(files))
    is_purged = """(document_id IN (SELECT document_id FROM purged_now)
        OR content_hash IN (SELECT content_hash FROM purged_now WHERE content_hash IS NOT NULL)
        OR (source, path) IN (SELECT (source, path) FROM purged_files))"""
    note_days(connection, counts, f"state.raw WHERE {is_purged}")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE purged_documents AS SELECT document_id FROM state.raw WHERE {is_purged}"
    )
    counts.rows_removed += fetch_value(connection, "SELECT count(*) FROM purged_documents")
    if fetch_value(connection, "SELECT count(*) FROM purged_documents"):
        # Bloom filters only grow: they are filled anew.
        connection.execute("DELETE FROM state.dedup_index WHERE name = 'bloom'")
    connection.execute(f"DELETE FROM state.raw WHERE {is_purged}")
    connection.execute(f"DELETE FROM state.waiting WHERE {is_purged}")
    connection.execute(
        "DELETE FROM state.files WHERE (source, path) IN (SELECT (source, path) FROM purged_files)"
    )
    connection.execute(
        """DELETE FROM state.errors WHERE (source, path) IN (SELECT (source, path) FROM purged_files)
        OR document_id IN (SELECT document_id FROM purged_documents)"""
    )
    connection.execute(
        """DELETE FROM state.versions WHERE document_id IN
        (SELECT document_id FROM purged_documents UNION ALL SELECT document_id FROM purged_now)"""
    )


def _last_settled(connection: duckdb.DuckDBPyConnection) -> tuple[str, int]:
    """Return the run that settled raw last, and the version that it made."""
    row = connection.execute("SELECT run_id, version FROM state.datasets WHERE name = 'raw'").fetchone()
    return row or ("", 0)


def _take(run: Run, counts: Counts, request: Request, found: Found, scan: _Scan, delta: _Delta) -> None:
    """Take in what was found in a file, or what became of it."""
    source, entry, known = request.source, request.entry, request.known
    if isinstance(found, Record):
        _add(run, counts, source, entry, found, scan, delta)
        if delta.full():
            _flush(run, delta)
    elif isinstance(found, ReadError):
        scan.errors.append(_file_error(source, entry, found.error, found.detail, found.record))
    elif found.is_last:
        place, entry = (source.name, entry.relative), found.entry
        scan.is_passing |= found.is_passing
        if found.kind == "same":
            if known is not None and (known.uri != entry.uri or not known.describes(entry)):
                scan.moved.append(_file_row(source, entry, found.file_hash, request.reader))
        elif found.kind == "put off":
            # Its documents stay as they are: the reason may have passed by the next run.
            scan.put_off.append(place)
            scan.errors.append(_file_error(source, entry, found.error, found.detail))
        elif found.kind == "unreadable":
            scan.read.append(place)
            scan.errors.append(_file_error(source, entry, found.error, found.detail))
        else:
            scan.read.append(place)
            delta.files.append(_file_row(source, entry, found.file_hash, request.reader))


def _add(
    run: Run,
    counts: Counts,
    source: SourceConfig,
    entry: FileEntry,
    record: Record,
    scan: _Scan,
    delta: _Delta,
) -> None:
    row = _row(source.name, entry.relative, entry.uri, entry.mtime_ns, record)
    if scan.purges.has(row["document_id"], row["content_hash"]):
        return
    delta.rows.append(row)
    if scan.stored is None:
        scan.stored = set(bodies_of(run).keys().to_pylist())
    if row["input_hash"] not in scan.stored:
        scan.stored.add(row["input_hash"])
        delta.bodies.append((row["input_hash"], record))
        delta.size += row["size_bytes"]
        counts.rows_computed += 1


def _row(source: str, path: str, uri: str, mtime_ns: int, record: Record) -> dict[str, Any]:
    data = record.content.encode() if record.content is not None else record.content_bytes or b""
    content_hash = digest(data)
    return {
        "document_id": key("document", source, path, "" if record.record is None else "#" + record.record),
        "source": source,
        "path": path,
        "uri": uri,
        "record": record.record,
        "byte_start": record.byte_start,
        "byte_end": record.byte_end,
        "media_type": record.media_type,
        "encoding": record.encoding,
        "document_date": record.document_date,
        "date_from": record.date_from,
        "content_hash": content_hash,
        "size_bytes": len(data),
        "partition_date": record.document_date or _day(mtime_ns),
        "title": record.title,
        "metadata": _json(record.metadata),
        "fields": _json(record.fields) if record.fields else None,
        "labels": _json(record.labels) if record.labels else None,
        "input_hash": key(content_hash, record.media_type),
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _day(mtime_ns: int) -> date:
    return datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC).date()


def _file_row(source: SourceConfig, entry: FileEntry, file_hash: bytes, reader: str) -> dict[str, Any]:
    return {
        "source": source.name,
        "path": entry.relative,
        "uri": entry.uri,
        "file_hash": file_hash,
        "reader": reader,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "version": entry.version,
    }


def _file_error(
    source: SourceConfig, entry: FileEntry, error: str, detail: str, record: str | None = None
) -> dict[str, Any]:
    return {
        "source": source.name,
        "path": entry.relative,
        "uri": entry.uri,
        "record": record,
        "error": error,
        "detail": detail,
    }


def _flush(run: Run, delta: _Delta) -> None:
    """Commit the bodies read so far to the memo, and stage the rows and files that name them.

    Rows enter the state in `_settle` only, together with what vanished: a run that dies or is stopped by the
    guard leaves the state as it was, and the next one reads again without storing a body twice.
    """
    if not run.dry:
        _store_bodies(run, delta)
    for name, table in (
        ("incoming_rows", _table(delta.rows, ROWS)),
        ("incoming_files", _table(delta.files, FILES)),
    ):
        execute_over(run.warehouse.connection, table, f"INSERT INTO {name} SELECT * FROM arriving")
    delta.__init__()  # type: ignore[misc]


def _store_bodies(run: Run, delta: _Delta) -> None:
    if not delta.bodies:
        return
    records = [record for _key, record in delta.bodies]
    nulls = pa.nulls(len(records), pa.string())
    columns = [
        uuid_array(body_key for body_key, _record in delta.bodies),
        pa.array([record.content for record in records], pa.string()),
        pa.array([record.content_bytes for record in records], pa.binary()),
        pa.array([record.media_type for record in records], pa.string()),
        nulls,
        nulls,
    ]
    bodies_of(run).append(pa.table(columns, names=["input_hash", *BODIES.names, "error", "detail"]))


def store_again(run: Run) -> int:
    """Store contents that the state names and the memo has lost, from the files that still hold them.

    The state stays as it is. Returns how many were stored; what no file holds any more stays lost.
    """
    store = bodies_of(run)
    known = store.keys().combine_chunks()
    with run.warehouse.session() as connection:
        load_rows(
            connection, "stored", pa.table([pa.ExtensionArray.from_storage(UUID, known)], ["input_hash"])
        )
        lost = connection.execute(
            """SELECT DISTINCT source, path, input_hash FROM (SELECT source, path, input_hash FROM state.raw
                UNION ALL SELECT source, path, input_hash FROM state.waiting) ANTI JOIN stored USING (input_hash)"""
        ).fetchall()
        purges = current_purges(run, connection)
    if not lost:
        return 0
    places = {(source, path) for source, path, _key in lost}
    wanted, stored = {key.bytes for *_place, key in lost}, 0
    delta = _Delta()
    for request, found in run.executor.read(_requests_of(run, purges, places)):
        if not isinstance(found, Record):
            continue
        entry = request.entry
        row = _row(request.source.name, entry.relative, entry.uri, entry.mtime_ns, found)
        if row["input_hash"] in wanted:
            wanted.discard(row["input_hash"])
            delta.bodies.append((row["input_hash"], found))
            delta.size += row["size_bytes"]
            stored += 1
        if len(delta.bodies) >= FLUSH_ROWS or delta.size >= FLUSH_BYTES:
            _store_bodies(run, delta)
            delta = _Delta()
    _store_bodies(run, delta)
    return stored


def _folders_of(run: Run, source: SourceConfig) -> tuple[Path, Path] | None:
    """Return the folders that a query is asked in: the corpus's own, and its work folder."""
    return (run.config.directory, run.warehouse.folder) if source.query is not None else None


def _requests_of(run: Run, purges: Purges, places: set[tuple[str, str]]) -> Iterator[Request]:
    """Yield the files of these places, to be read whatever is known of them."""
    for source, files, _problems in list_sources(run, purges):
        reader = reader_of(run.setup, source)
        for entry in files:
            if (source.name, entry.relative) in places:
                yield Request(source, reader, entry, None, _folders_of(run, source))


def _upsert_rows(connection: duckdb.DuckDBPyConnection, counts: Counts) -> None:
    """Replace the rows of the same ids; a row whose content stays keeps the time it was ingested."""
    row = connection.execute(
        """SELECT count(*) FILTER (WHERE r.document_id IS NULL), count(*) FILTER (WHERE r.row_hash <> f.row_hash)
        FROM fresh AS f LEFT JOIN state.raw AS r USING (document_id)"""
    ).fetchone()
    assert row is not None
    counts.rows_added += row[0]
    counts.rows_changed += row[1]
    connection.execute(
        """DELETE FROM fresh USING state.raw AS r
        WHERE r.document_id = fresh.document_id AND r.row_hash = fresh.row_hash"""
    )
    connection.execute(
        """UPDATE fresh SET ingested_at = r.ingested_at FROM state.raw AS r
        WHERE r.document_id = fresh.document_id AND r.input_hash = fresh.input_hash"""
    )
    note_days(connection, counts, "fresh")
    note_days(connection, counts, "state.raw SEMI JOIN fresh USING (document_id)")
    connection.execute("DELETE FROM state.raw WHERE document_id IN (SELECT document_id FROM fresh)")
    connection.execute("INSERT INTO state.raw SELECT * FROM fresh")


def _settle(run: Run, counts: Counts, scan: _Scan) -> bool:
    """Apply rows, deletions (guarded), moves and errors in one transaction, and close the update.

    Returns false, and applies nothing, where another run has settled since this one looked at what is known: its
    listing may be the newer one, and what this one took for unchanged may be so no more.
    """
    connection = run.warehouse.connection
    sources, chosen = run.config.sources, _chosen(run)
    _memory_table(connection, "listed", _pairs(scan.listed))
    _memory_table(connection, "unlisted", _pairs(scan.unlisted))
    _memory_table(connection, "was_read", _pairs(scan.read))
    _memory_table(connection, "put_off", _pairs(scan.put_off))
    _memory_table(connection, "moved", _table(scan.moved, FILES))
    _memory_table(connection, "raw_errors", _table(scan.errors, ERRORS))
    _memory_table(
        connection,
        "complete_sources",
        pa.table(
            {
                "source": pa.array([source.name for source in sources], pa.string()),
                "complete": pa.array(
                    [source.complete and source in chosen for source in sources], pa.bool_()
                ),
                "is_read": pa.array([source in chosen for source in sources], pa.bool_()),
                "is_query": pa.array([source.query is not None for source in sources], pa.bool_()),
            }
        ),
    )
    connection.execute(
        "DELETE FROM incoming_rows WHERE (source, path) IN (SELECT (source, path) FROM put_off)"
    )
    with run.warehouse.session() as connection:
        if _last_settled(connection) != scan.seen:
            return False
        if not run.dry:
            # What was purged does not count as vanished: a person has said so.
            _apply_purges(connection, counts, scan.purges)
        _find_vanished(connection)
        if not run.allow_deletes:
            _guard(connection)
        if run.dry:
            counts.rows_removed = fetch_value(connection, "SELECT count(*) FROM vanished")
            new = "incoming_rows ANTI JOIN state.raw USING (document_id)"
            counts.rows_in = fetch_value(
                connection, f"SELECT (SELECT count(*) FROM state.raw) + (SELECT count(*) FROM {new})"
            )
            return True
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE fresh AS
            SELECT * REPLACE (?::TIMESTAMP AS ingested_at), {ROW_HASH} AS row_hash FROM incoming_rows""",
            [utc_now()],
        )
        _move(connection)
        hold_back(connection, _days(run, connection))
        counts.rows_removed += fetch_value(connection, "SELECT count(*) FROM vanished")
        note_days(connection, counts, "state.raw SEMI JOIN vanished USING (document_id)")
        connection.execute("DELETE FROM state.raw WHERE document_id IN (SELECT document_id FROM vanished)")
        _upsert_rows(connection, counts)
        counts.rows_waiting = fetch_value(connection, "SELECT count(*) FROM state.waiting")
        _replace_files(connection)
        _replace_errors(connection, run.run_id)
        if not run.sources:
            connection.execute("DELETE FROM state.listing")
            # A file that had gone when it was to be read may be back, as it was: its listing vouches for nothing.
            if not scan.is_passing:
                connection.execute("INSERT INTO state.listing VALUES (?)", [scan.fingerprint])
        counts.rows_in = fetch_value(connection, "SELECT count(*) FROM state.raw")
        counts.rows_reused = counts.rows_in - min(counts.rows_in, counts.rows_computed)
        finish(
            run, connection, counts, upstream_version=0, explained=lambda: {"reader": run.setup.code(read)}
        )
    bodies_of(run).merge()
    return True


def _find_vanished(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables gone_files (source, path) and vanished (document_id, source, input_hash)."""
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE gone_files AS
        SELECT source, path
        FROM (SELECT source, path FROM state.files UNION SELECT source, path FROM state.raw
            UNION SELECT source, path FROM state.waiting) AS known
        LEFT JOIN complete_sources USING (source) ANTI JOIN listed USING (source, path)
        WHERE coalesce(complete, true) AND NOT EXISTS (SELECT 1 FROM unlisted AS u
            WHERE u.source = known.source AND starts_with(known.path, u.path))"""
    )
    # What waits to be deleted has been confirmed before.
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE vanished AS FROM (
        SELECT document_id, source, input_hash FROM state.raw SEMI JOIN gone_files USING (source, path)
        UNION ALL
        SELECT document_id, source, input_hash FROM state.raw SEMI JOIN was_read USING (source, path)
        ANTI JOIN incoming_rows USING (document_id)
        WHERE source NOT IN (SELECT source FROM complete_sources WHERE is_query AND NOT complete))
        WHERE document_id NOT IN (SELECT document_id FROM state.waiting WHERE gone)"""
    )


def _guard(connection: duckdb.DuckDBPyConnection) -> None:
    """Stop when too much of a source would vanish.

    A document that only moved (the same content came at a new place) counts as there.
    """
    row = connection.execute(
        f"""WITH went AS (SELECT source, input_hash, count(*) AS went FROM vanished GROUP BY ALL),
            came AS (SELECT source, input_hash, count(*) AS came FROM incoming_rows
                ANTI JOIN state.raw USING (document_id, input_hash) GROUP BY ALL),
            lost AS (SELECT source, sum(greatest(went - coalesce(came, 0), 0))::BIGINT AS lost
                FROM went LEFT JOIN came USING (source, input_hash) GROUP BY source),
            had AS (SELECT source, count(*) AS had FROM state.raw GROUP BY source)
        SELECT source, lost, had FROM lost JOIN had USING (source)
        WHERE lost > greatest({GUARD_DOCUMENTS}, {GUARD_SHARE} * had) ORDER BY lost DESC, source LIMIT 1"""
    ).fetchone()
    if row:
        source, lost, had = row
        raise StemmaError(
            f"source '{source}': {lost} of its {had} documents would vanish (an empty mount? a wrong path?);"
            " nothing was deleted. If this is meant, run again with --allow-deletes"
        )


def _replace_files(connection: duckdb.DuckDBPyConnection) -> None:
    """Remember the files that were read; forget those that are gone or could not be, so that they are read anew."""
    connection.execute(
        """DELETE FROM state.files WHERE (source, path) IN (SELECT (source, path) FROM gone_files
        UNION ALL SELECT (source, path) FROM was_read UNION ALL SELECT (source, path) FROM put_off)"""
    )
    connection.execute("INSERT INTO state.files SELECT * FROM incoming_files")
    connection.execute("DELETE FROM state.files WHERE (source, path) IN (SELECT (source, path) FROM moved)")
    connection.execute("INSERT INTO state.files SELECT * FROM moved")
    connection.execute(
        """UPDATE state.errors SET uri = m.uri FROM moved AS m
        WHERE m.source = errors.source AND m.path = errors.path AND m.uri <> errors.uri"""
    )


def _days(run: Run, connection: duckdb.DuckDBPyConnection) -> Days:
    """Return the days that the run takes in: all of them where a lost state is made anew."""
    is_lost = state_of(connection, "raw").version == 0 and run.warehouse.path.exists()
    return ALL_DAYS if is_lost else run.days


def _move(connection: duckdb.DuckDBPyConnection) -> None:
    """Take over new modification times and places of files whose bytes are the same, into the table `fresh`."""
    known = """(SELECT * FROM state.raw ANTI JOIN state.waiting USING (document_id)
        UNION ALL SELECT * EXCLUDE (gone) FROM state.waiting WHERE NOT gone)"""
    connection.execute(
        f"""INSERT INTO fresh SELECT * REPLACE ({ROW_HASH} AS row_hash) FROM (
            SELECT r.* REPLACE (m.uri AS uri,
                coalesce(r.document_date, epoch_ms(m.mtime_ns // 1000000)::DATE) AS partition_date)
            FROM {known} AS r JOIN moved AS m USING (source, path))"""
    )


def _replace_errors(connection: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Errors of files that were not read again stay; all others are as this run found them.

    Call it when state.files is up to date: it has the files that a partial listing leaves out.
    """
    same = (
        "e.source = n.source AND e.path = n.path AND e.record IS NOT DISTINCT FROM n.record"
        " AND e.error = n.error AND e.detail = n.detail"
    )
    connection.execute(
        f"""DELETE FROM state.errors AS e WHERE stage = 'raw'
        AND NOT EXISTS (SELECT 1 FROM raw_errors AS n WHERE {same})
        AND source NOT IN (SELECT source FROM complete_sources WHERE NOT is_read)
        AND ((source, path) IN (SELECT (source, path) FROM was_read UNION ALL SELECT (source, path) FROM put_off)
            OR (source, path) NOT IN
                (SELECT (source, path) FROM listed UNION ALL SELECT (source, path) FROM state.files))"""
    )
    connection.execute(
        f"""INSERT INTO state.errors
        SELECT NULL, source, path, uri, record, 'raw', error, detail, ? FROM raw_errors AS n
        WHERE NOT EXISTS (SELECT 1 FROM state.errors AS e WHERE e.stage = 'raw' AND {same})""",
        [run_id],
    )
    connection.execute(
        "DELETE FROM state.errors WHERE stage <> 'raw' AND document_id NOT IN (SELECT document_id FROM state.raw)"
    )


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = [
        uuid_array(row.get(item.name) for row in rows)
        if item.type == UUID
        else pa.array([row.get(item.name) for row in rows], item.type)
        for item in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _pairs(places: list[tuple[str, str]]) -> pa.Table:
    return pa.table(
        {
            "source": pa.array([source for source, _path in places], pa.string()),
            "path": pa.array([path for _source, path in places], pa.string()),
        }
    )


def _memory_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    execute_over(connection, table, f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM arriving")

"""The warehouse: the only module that knows how rows are kept.

Three layers below the path of the published file (`.stemma/corpus.duckdb`, folder `.stemma/corpus.work/`):

- `memo/`: bodies (contents, cleaned texts, chunks, vectors) by content and recipe, immutable (see memo.py);
- `state.duckdb`: what the corpus is now, without bodies: narrow tables, opened by one writer at a time, briefly;
- the published file: state and bodies joined, made beside the old one and swapped in, so that a reader keeps
  the file that it opened and no reader or writer ever waits for the other.
"""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from stemma.cleaning.clean import SCORES
from stemma.datasets import MATCHES, sql_type
from stemma.errors import StemmaError
from stemma.hashing import key
from stemma.lineage.history import forget_all
from stemma.lineage.views import work_folder
from stemma.resources.copying import EarlyCopy, copy_file, sync
from stemma.resources.memo import Live, Memo, join_as_usual
from stemma.resources.scratch import AUDIT, SPILL, Scratch, others_work, remove_abandoned

STORAGE_VERSION = "v1.5.0"
# A commit writes a block for each column that changed: 100 rows of 10,000 take 18 ms with DuckDB's own 256 KiB, and 10
# so; what reads whole columns of 100,000 rows takes some 5 % longer.
STATE_OPTIONS = f"STORAGE_VERSION '{STORAGE_VERSION}', BLOCK_SIZE 65536"
# The next published file is a scratch file until it is swapped in, so it needs no write-ahead log; and rows go
# out in groups small enough to be written once, at the insert (50,000 vectors: 0.8 s of processor against 2.8).
NEXT_OPTIONS = f"STORAGE_VERSION '{STORAGE_VERSION}', ROW_GROUP_SIZE 2048, RECOVERY_MODE no_wal_writes"
# DuckDB's share of memory to begin with. State is narrow and bodies stream, so a corpus of ten thousand documents
# needs no more; a larger one starts with a share that follows its state, and `grant_memory` raises it on demand.
MEMORY_BYTES = 160 * 1024 * 1024
MEMORY_PER_STATE_BYTE = 3
# From this share of that memory and from so many bytes on, what a step leaves behind is thrown away with its
# connection (15 ms).
LEFT_SHARE = 0.1
LEFT_BYTES = 48 * 1024 * 1024
LEFT_BEHIND = (
    "SELECT coalesce(sum(memory_usage_bytes + temporary_storage_bytes), 0)::BIGINT FROM duckdb_memory()"
)
# What no other database has. Columns are not asked for: that would bind all views.
OUR_TABLES = """SELECT count(*) FROM duckdb_tables() WHERE database_name = 'published' AND schema_name = 'lineage'
    AND table_name IN ('runs', 'recipes')"""
# A file that holds more dead than live blocks is rewritten instead of copied.
DEAD_SHARE = 0.5
DEAD_BYTES = 64 * 1024 * 1024
# So long a writer waits for another without a word; what the lock says of its holder is no longer than this.
WAITED_SECONDS = 5.0
HOLDER_BYTES = 400
# How often it is looked whether other runs have ended.
ALONE_SECONDS = 0.5
# What a DuckDB file has at its ninth byte.
DUCKDB_MAGIC = b"DUCK"

# What a state of another version of Stemma hands on: all else is planned anew, and found in the memo.
HANDED_ON = ("runs", "recipes", "versions", "embedding_health", "measures", "purged")

STATE_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS state.datasets (
    name VARCHAR, recipe VARCHAR, stage_recipe VARCHAR, version BIGINT, upstream_version BIGINT,
    state_hash VARCHAR, rows BIGINT, run_id VARCHAR, detail JSON);
CREATE TABLE IF NOT EXISTS state.files (
    source VARCHAR, path VARCHAR, uri VARCHAR, file_hash UUID, reader VARCHAR, size BIGINT, mtime_ns BIGINT,
    version VARCHAR);
CREATE TABLE IF NOT EXISTS state.raw (
    document_id UUID, source VARCHAR, path VARCHAR, uri VARCHAR, record VARCHAR, byte_start BIGINT, byte_end BIGINT,
    media_type VARCHAR, encoding VARCHAR, document_date DATE, date_from VARCHAR, content_hash UUID, size_bytes BIGINT,
    ingested_at TIMESTAMP, partition_date DATE, title VARCHAR, metadata JSON, fields JSON, labels JSON,
    input_hash UUID, row_hash UBIGINT);
CREATE TABLE IF NOT EXISTS state.waiting (
    document_id UUID, source VARCHAR, path VARCHAR, uri VARCHAR, record VARCHAR, byte_start BIGINT, byte_end BIGINT,
    media_type VARCHAR, encoding VARCHAR, document_date DATE, date_from VARCHAR, content_hash UUID, size_bytes BIGINT,
    ingested_at TIMESTAMP, partition_date DATE, title VARCHAR, metadata JSON, fields JSON, labels JSON,
    input_hash UUID, row_hash UBIGINT, gone BOOLEAN);
CREATE TABLE IF NOT EXISTS state.cleaned (
    document_id UUID, title VARCHAR, author VARCHAR, text_hash UUID, declared_language VARCHAR, language VARCHAR,
    language_score DOUBLE, words INTEGER, scores {sql_type(SCORES)}, characters BIGINT, document_date DATE,
    date_from VARCHAR, source VARCHAR, matches {sql_type(MATCHES)}, contamination DOUBLE,
    model_scores MAP(VARCHAR, DOUBLE), verdicts STRUCT(rule VARCHAR, score DOUBLE, threshold DOUBLE)[],
    run_id VARCHAR, input_hash UUID, origin UBIGINT, content_hash UBIGINT, row_hash UBIGINT);
CREATE TABLE IF NOT EXISTS state.deduplicated (
    document_id UUID, cluster_id UUID, cluster_size BIGINT, kept BOOLEAN, kept_document_id UUID, similarity DOUBLE,
    method VARCHAR, threshold DOUBLE, cuts STRUCT("start" INTEGER, "end" INTEGER)[], run_id VARCHAR, text_hash UUID,
    input_hash UUID, row_hash UBIGINT);
CREATE TABLE IF NOT EXISTS state.chunked (
    chunk_id UUID, document_id UUID, ordinal INTEGER, char_start INTEGER, char_end INTEGER,
    byte_start INTEGER, byte_end INTEGER, tokens INTEGER,
    section VARCHAR, text_hash UUID, input_hash UUID, origin UBIGINT, row_hash UBIGINT);
CREATE TABLE IF NOT EXISTS state.embedded (
    chunk_id UUID, document_id UUID, model VARCHAR, text_hash UUID, input_hash UUID, before_hash UUID, after_hash UUID,
    origin UBIGINT, row_hash UBIGINT);
CREATE TABLE IF NOT EXISTS state.embedding_health (
    run_id VARCHAR, number BIGINT, measured_at TIMESTAMP, model VARCHAR, recipe VARCHAR, state_hash VARCHAR,
    vectors BIGINT, unsound BIGINT, repeated BIGINT, norm_min DOUBLE, norm_max DOUBLE, mean_cosine DOUBLE,
    effective_rank DOUBLE, isoscore DOUBLE, drift DOUBLE);
CREATE TABLE IF NOT EXISTS state.measures (
    run_id VARCHAR, number BIGINT, measured_at TIMESTAMP, dataset VARCHAR, state_hash VARCHAR, measure VARCHAR,
    value DOUBLE);
CREATE TABLE IF NOT EXISTS state.errors (
    document_id UUID, source VARCHAR, path VARCHAR, uri VARCHAR, record VARCHAR, stage VARCHAR, error VARCHAR,
    detail VARCHAR, run_id VARCHAR);
CREATE TABLE IF NOT EXISTS state.runs (
    run_id VARCHAR, dataset VARCHAR, recipe VARCHAR, started_at TIMESTAMP, finished_at TIMESTAMP, rows_in BIGINT,
    rows_added BIGINT, rows_changed BIGINT, rows_removed BIGINT, rows_reused BIGINT, rows_computed BIGINT,
    rows BIGINT, errors BIGINT, number BIGINT);
CREATE TABLE IF NOT EXISTS state.publication (fingerprint VARCHAR);
CREATE TABLE IF NOT EXISTS state.listing (fingerprint VARCHAR);
CREATE TABLE IF NOT EXISTS state.layout (digest VARCHAR);
CREATE TABLE IF NOT EXISTS state.recipes (recipe VARCHAR, dataset VARCHAR, explained JSON);
CREATE TABLE IF NOT EXISTS state.dedup_index (name VARCHAR, recipe VARCHAR);
CREATE TABLE IF NOT EXISTS state.dedup_documents (
    document_id UUID, node UUID, text_hash UUID, body_hash UUID, source VARCHAR, category VARCHAR, document_date DATE,
    length BIGINT, quality DOUBLE, row_hash UBIGINT);
CREATE TABLE IF NOT EXISTS state.dedup_bands (
    layer UTINYINT, bucket UINTEGER, node UUID, rank BIGINT, asks BOOLEAN);
CREATE TABLE IF NOT EXISTS state.dedup_candidates (layer UTINYINT, a UUID, b UUID, buckets BIGINT);
CREATE TABLE IF NOT EXISTS state.dedup_pairs (layer UTINYINT, a UUID, b UUID, buckets BIGINT, score DOUBLE);
CREATE TABLE IF NOT EXISTS state.dedup_pending (document_id UUID);
CREATE TABLE IF NOT EXISTS state.bloom_nodes (node UUID, kept BOOLEAN);
CREATE TABLE IF NOT EXISTS state.bloom_filters (folder VARCHAR);
CREATE TABLE IF NOT EXISTS state.passage_postings (bucket UBIGINT, text_hash UUID);
CREATE TABLE IF NOT EXISTS state.passage_texts (text_hash UUID, words INTEGER);
CREATE TABLE IF NOT EXISTS state.passage_pairs (earlier UUID, later UUID);
CREATE TABLE IF NOT EXISTS state.passage_runs (
    earlier UUID, later UUID, char_start INTEGER, char_end INTEGER, source_char_start INTEGER,
    source_char_end INTEGER, words INTEGER, first_word INTEGER, source_first_word INTEGER);
CREATE TABLE IF NOT EXISTS state.passages (
    document_id UUID, char_start INTEGER, char_end INTEGER, source_document_id UUID, source_char_start INTEGER,
    source_char_end INTEGER, words INTEGER);
CREATE TABLE IF NOT EXISTS state.purged (
    document_id UUID, content_hash UUID, purged_at TIMESTAMP, reason VARCHAR);
CREATE TABLE IF NOT EXISTS state.versions (
    document_id UUID, version BIGINT, text_hash UUID, since TIMESTAMP, since_run VARCHAR, until TIMESTAMP,
    until_run VARCHAR);
"""

LAYOUT = key(STATE_SCHEMA).hex()


def utc_now() -> datetime:
    """Return the time now, in UTC, without a zone (DuckDB TIMESTAMP)."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Size:
    """Bytes on disk of the three layers."""

    published: int
    state: int
    memo: int


class Warehouse:
    """Where the corpus is kept. One object a process; any number of processes.

    `session()` gives the writer's connection with the state attached as `state`, under a lock between
    processes: hold it for bookkeeping only, never while something is computed.
    """

    def __init__(self, path: Path, *, waiting: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.folder = work_folder(path)
        self.state_path = self.folder / "state.duckdb"
        self.memo = Memo(self.folder / "memo")
        self._waiting = waiting or (lambda _message: None)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._memory_bytes = MEMORY_BYTES
        self._early_copy: EarlyCopy | None = None
        self._spill: Scratch | None = None

    @property
    def report_path(self) -> Path:
        """Where `stemma report` writes to, unless it is told otherwise."""
        return self.path.with_suffix(".report.html")

    @property
    def purges_path(self) -> Path:
        """Where the list of purged documents is."""
        return self.path.with_suffix(".purged.jsonl")

    @property
    def own_paths(self) -> tuple[Path, ...]:
        """What lies beside the sources perhaps, and is none of them: published file, work folder, report, purges."""
        return self.path, self.folder, self.report_path, self.purges_path

    # -- the writer's side -------------------------------------------------------------------------------------

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The process's in-memory connection: temporary tables and the memo; the state only within a session."""
        if self._connection is None:
            self._refuse_no_database()
            needed = max(MEMORY_BYTES, MEMORY_PER_STATE_BYTE * _bytes(self.state_path))
            self._memory_bytes = max(self._memory_bytes, needed)
            self._spill = self._spill or self._new_spill()
            self._connection = duckdb.connect(
                config={
                    "memory_limit": f"{self._memory_bytes}B",
                    "allocator_flush_threshold": "16MB",
                    # Each commit writes the state itself, and no log before it: a third of the time less.
                    "checkpoint_threshold": "1KB",
                    "temp_directory": str(self._spill.path),
                    # For `execute_over`.
                    "python_enable_replacements": True,
                    "arrow_lossless_conversion": True,
                    "preserve_insertion_order": False,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                }
            )
            join_as_usual(self._connection)
        return self._connection

    def _new_spill(self) -> Scratch:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return Scratch(self.folder, SPILL)
        except OSError as error:
            raise StemmaError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the connection and drop its temporary tables."""
        if self._early_copy is not None:
            self._early_copy.discard()
            self._early_copy = None
        self.memo.close()
        self._disconnect()
        if self._spill is not None:
            self._spill.close()
            self._spill = None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def let_go(self) -> None:
        """Give back what a step leaves in memory: mapped segments, and its temporary tables where they are large.

        The next step begins a connection of its own then, with the memory that the state by now asks for.
        """
        self.memo.unmap()
        if self._connection is not None:
            ((left,),) = self._connection.execute(LEFT_BEHIND).fetchall()
            if left > max(LEFT_BYTES, LEFT_SHARE * self._memory_bytes):
                self._disconnect()

    def grant_memory(self) -> bool:
        """Double DuckDB's share of memory, on a new connection; False once it has half of the machine's.

        The old one may have a database attached that a failed checkpoint has made useless.
        """
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if self._memory_bytes * 2 > machine // 2:
            return False
        self._memory_bytes *= 2
        self.close()
        return True

    @contextlib.contextmanager
    def session(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the state as `state` in one transaction: committed at the end, rolled back on an exception."""
        connection = self.connection
        with self._lock():
            self._attach_state(connection)
            try:
                connection.execute("BEGIN")
                try:
                    yield connection
                except BaseException:
                    _roll_back(connection)
                    raise
                connection.execute("COMMIT")
            finally:
                connection.execute("DETACH state")

    @contextlib.contextmanager
    def paused(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Commit a session's transaction, for statements that write other tables than the state's; then begin anew.

        The lock is held on.
        """
        connection.execute("COMMIT")
        try:
            yield
        finally:
            connection.execute("BEGIN")

    def _attach_state(self, connection: duckdb.DuckDBPyConnection) -> None:
        if not self.state_path.exists():
            self._create_state(connection)
        self._attach(connection, self.state_path, "state")
        if not _has_this_layout(connection):
            is_foreign = _is_foreign(connection)
            connection.execute("DETACH state")
            if is_foreign:
                raise StemmaError(
                    f"{self.state_path}: a DuckDB file, but not a state of Stemma's; it was left as it is."
                    " Move it away and run again"
                )
            self._create_state(connection, before=self.state_path)
            self._attach(connection, self.state_path, "state")

    @staticmethod
    def _attach(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
        try:
            connection.execute(f"ATTACH '{_escaped(path)}' AS {name} (STORAGE_VERSION '{STORAGE_VERSION}')")
        except (duckdb.IOException, duckdb.SerializationException, duckdb.FatalException) as error:
            if "set lock" in str(error):
                raise StemmaError(
                    f"{path}: another program, or a run on another machine, has it open: {first_line(error)}"
                ) from error
            raise StemmaError(
                f"{path}: cannot be opened as Stemma's state: {first_line(error)}"
                " (see docs/operations.md, 'A damaged state')"
            ) from error

    def _create_state(self, connection: duckdb.DuckDBPyConnection, *, before: Path | None = None) -> None:
        """Make an empty state beside and move it into place: whoever is killed meanwhile leaves none, not half.

        From a state `before` it, of another layout, the history is taken over. The rest is worked out anew from
        sources and memo, which costs reading but no computing.
        """
        self._discard_leftovers()
        target = self._beside(self.state_path)
        connection.execute(f"ATTACH '{_escaped(target)}' AS state ({STATE_OPTIONS})")
        try:
            connection.execute(STATE_SCHEMA)
            connection.execute("INSERT INTO state.layout VALUES (?)", [LAYOUT])
            if before is not None:
                self._hand_on(connection, before)
            connection.execute("CHECKPOINT state")
        finally:
            connection.execute("DETACH state")
        os.replace(target, self.state_path)

    def _hand_on(self, connection: duckdb.DuckDBPyConnection, before: Path) -> None:
        self._attach(connection, before, "state_before")
        try:
            for table in HANDED_ON:
                names = _columns(connection, "state", table) & _columns(connection, "state_before", table)
                if names:
                    listed = ", ".join(sorted(names))
                    connection.execute(
                        f"INSERT INTO state.{table} BY NAME SELECT {listed} FROM state_before.{table}"
                    )
        finally:
            connection.execute("DETACH state_before")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as handle:
            self._acquire(handle.fileno())
            _note_holder(handle.fileno())
            try:
                yield
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)

    def _acquire(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            # Runs side by side wait for moments: only a longer wait is worth a word.
            timer = threading.Timer(WAITED_SECONDS, self._tell_of_wait, [descriptor])
            timer.daemon = True
            timer.start()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            finally:
                timer.cancel()

    def _tell_of_wait(self, descriptor: int) -> None:
        held = os.pread(descriptor, HOLDER_BYTES, 0).decode("utf-8", "replace").strip()
        by = f" ({held})" if held else ""
        self._waiting(f"another run is writing to {self.path}{by}; waiting for it")

    # -- the readers' side -------------------------------------------------------------------------------------

    def read(self) -> duckdb.DuckDBPyConnection:
        """Open the published file read-only. Raises StemmaError when nothing has been published yet."""
        if not self.path.exists():
            raise StemmaError(f"{self.path}: nothing published yet; run 'stemma run' first")
        try:
            return duckdb.connect(str(self.path), read_only=True)
        except duckdb.Error as error:
            raise StemmaError(f"{self.path}: cannot be opened: {first_line(error)}") from error

    # -- publication -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Begin to copy the published file: call it once it is clear that another will follow."""
        if self._early_copy is None and self.path.exists():
            self._early_copy = EarlyCopy(self.path, self._beside(self.path))

    def publish(
        self,
        connection: duckdb.DuckDBPyConnection,
        fill: Callable[[duckdb.DuckDBPyConnection], None],
        *,
        anew: bool,
    ) -> None:
        """Swap in a new published file; `anew` makes it from nothing, whatever is published.

        Call it within `session()`. `fill` gets the connection with the next file attached as `next`, the default
        database (a copy of the published one, or empty), inside a transaction, and makes it equal to the state;
        if it raises, the published file stays as it is.
        """
        # The session's transaction has read the state only; the next file needs a transaction of its own.
        with self.paused(connection):
            target = self._beside(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            early, self._early_copy = self._early_copy, None
            is_copied = early is not None and early.is_good() and not anew
            self._discard_leftovers(but=target if is_copied else None)
            self.sweep()
            try:
                if anew:
                    self._refuse_foreign(connection)
                else:
                    self._copy_published(connection, target, is_copied)
                connection.execute(f"ATTACH '{_escaped(target)}' AS next ({NEXT_OPTIONS})")
                # Views are bound as a reader of the file will see them: with it as the default database.
                connection.execute("USE next")
                try:
                    connection.execute("BEGIN")
                    try:
                        fill(connection)
                    except BaseException:
                        _roll_back(connection)
                        raise
                    connection.execute("COMMIT")
                    connection.execute("CHECKPOINT next")
                finally:
                    # A database whose checkpoint failed answers nothing any more; its connection is given up with it.
                    with contextlib.suppress(duckdb.IOException):
                        connection.execute("USE memory")
                        connection.execute("DETACH next")
                sync(target)
                target.chmod(0o444)
                os.replace(target, self.path)
                sync(self.path.parent)
            finally:
                target.unlink(missing_ok=True)
                target.with_name(target.name + ".wal").unlink(missing_ok=True)

    def _refuse_no_database(self) -> None:
        """Raise StemmaError where what is published is not even a DuckDB file: a run would find that in the end."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            if file.read(12)[8:] != DUCKDB_MAGIC:
                raise StemmaError(
                    f"{self.path}: not a DuckDB file that Stemma published; it was left as it is."
                    " Move it away and run again, or name another file in [warehouse] path"
                )

    @contextlib.contextmanager
    def _published(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Attach what is published as `published`. Raises StemmaError where that is no file that Stemma published."""
        try:
            connection.execute(f"ATTACH '{_escaped(self.path)}' AS published (READ_ONLY)")
        except (duckdb.IOException, duckdb.SerializationException, duckdb.FatalException) as error:
            raise StemmaError(
                f"{self.path}: not a DuckDB file that Stemma published ({first_line(error)});"
                " move it away and run again: it is made anew from the state"
            ) from error
        try:
            if connection.execute(OUR_TABLES).fetchone() != (2,):
                raise StemmaError(
                    f"{self.path}: a DuckDB file, but not one that Stemma published; it was left as it is."
                    " Move it away, or name another file in [warehouse] path"
                )
            yield
        finally:
            connection.execute("DETACH published")

    def _refuse_foreign(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Raise StemmaError where the file that would be replaced is none that Stemma published."""
        if self.path.exists():
            with self._published(connection):
                pass

    def _copy_published(self, connection: duckdb.DuckDBPyConnection, target: Path, is_copied: bool) -> None:
        """Make `target` a copy of the published file, if there is one; without what is dead where most is."""
        if not self.path.exists():
            return
        with self._published(connection):
            mostly_dead = _mostly_dead(connection)
        if mostly_dead:
            target.unlink(missing_ok=True)
            _rewrite(connection, self.path, target)
        elif not is_copied:
            copy_file(self.path, target)

    def _discard_leftovers(self, *, but: Path | None = None) -> None:
        # Under the lock nobody else publishes: whatever lies there is of a process that was killed, or an early
        # copy of what is published no more.
        for path in (self.path, self.state_path, self.purges_path):
            for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.next*"):
                if leftover != but:
                    leftover.unlink(missing_ok=True)

    @staticmethod
    def _beside(path: Path) -> Path:
        return path.with_name(f".{path.name}.{os.getpid()}.next")

    # -- upkeep ------------------------------------------------------------------------------------------------

    def compact(
        self,
        live: Callable[[duckdb.DuckDBPyConnection], Live],
        *,
        keep_days: int = 30,
        forget_history: bool = False,
    ) -> tuple[Size, Size]:
        """Rewrite state and published file without dead space, and drop what the memo keeps for nobody.

        What the corpus is not made of is forgotten once it is older than `keep_days`: until then, going back to an
        earlier setting or text is free. `live` says what it is made of, as for `erase`. `forget_history` leaves in
        the published file what it is now, and nothing of earlier publications. Waits until no other process works
        here. Returns the sizes before and after.
        """
        before = self.size()
        with self._alone():
            kept, used = self._in_use(live)
            self._discard_leftovers()
            self.sweep()
            horizon = time.time() - keep_days * 86400
            self.memo.keep_only(kept, before=horizon, used=used)
            self.memo.empty_quarantine(horizon)
            self._rewrite_files(self.connection, forget_history)
        return before, self.size()

    def _in_use(self, live: Callable[[duckdb.DuckDBPyConnection], Live]) -> tuple[Live, set[str]]:
        """Return what is live with the settings of now, and the recipes that the state was made by."""
        connection = self.connection
        self._attach_state(connection)
        try:
            recipes = connection.execute("SELECT stage_recipe FROM state.datasets").fetchall()
            return live(connection), {recipe for (listed,) in recipes for recipe in listed.split()}
        finally:
            connection.execute("DETACH state")

    def _rewrite_files(self, connection: duckdb.DuckDBPyConnection, forget_history: bool) -> None:
        self._refuse_foreign(connection)
        for path in (self.state_path, self.path):
            if path.exists():
                target = self._beside(path)
                mode = path.stat().st_mode
                source = path
                if path == self.path and forget_history:
                    source = target.with_name(f"{target.name}.forgetting")
                    copy_file(path, source)
                    source.chmod(0o600)
                    _forget_history(connection, source)
                # Small groups of rows are for what is read in part: the state would grow by half with its next change.
                options = NEXT_OPTIONS if path == self.path else STATE_OPTIONS
                _rewrite(connection, source, target, options)
                if source != path:
                    source.unlink()
                sync(target)
                target.chmod(mode)
                os.replace(target, path)
                sync(path.parent)

    def erase(self, live: Callable[[duckdb.DuckDBPyConnection], Live]) -> int:
        """Leave on disk what the corpus is made of now, and nothing else; returns how many results the memo lost.

        `live` gets the connection with the state attached, and says which results are to stay: schema and keys by
        stage and recipe. Waits until no other process works here, since they use the memo without a lock. The
        state and the published file are written anew, without dead blocks and without a history. Whoever is killed
        meanwhile leaves a corpus that can be read, and may begin again.
        """
        with self._alone():
            kept, _used = self._in_use(live)
            self._discard_leftovers()
            self.sweep()
            self.report_path.unlink(missing_ok=True)
            # What a reader that was killed has spilled; one that lives has its files open, and keeps them.
            shutil.rmtree(self.path.with_name(f"{self.path.name}.tmp"), ignore_errors=True)
            removed = self.memo.keep_only(kept)
            # Damaged segments hold texts like any other.
            shutil.rmtree(self.memo.quarantine, ignore_errors=True)
            self._rewrite_files(self.connection, forget_history=True)
            return removed

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock while no other process works with this corpus; one that begins now waits for its state."""
        told = False
        while True:
            with self._lock():
                ours = self._spill and self._spill.path
                if not any(others_work(self.folder, prefix, ours) for prefix in (SPILL, AUDIT)):
                    yield
                    return
            if not told:
                self._waiting(f"another run works on {self.path}; waiting for its end")
                told = True
            time.sleep(ALONE_SECONDS)

    def size(self) -> Size:
        """Return the bytes on disk of each layer."""
        return Size(_bytes(self.path), _bytes(self.state_path), self.memo.size_bytes())

    def sweep(self) -> None:
        """Remove what dead processes left: what they spilled or rebuilt, and segments half written an hour ago."""
        for prefix in (SPILL, AUDIT):
            remove_abandoned(self.folder, prefix)
        horizon = time.time() - 3600
        for _stage, _recipe, folder in self.memo.recipes():
            for path in folder.glob(".*.tmp"):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < horizon:
                        path.unlink()


def _note_holder(descriptor: int) -> None:
    """Write into the lock who holds it, for those who wait; nothing but their message depends on it."""
    holder = (
        f"{socket.gethostname()}, process {os.getpid()}, since {utc_now().isoformat(' ', 'seconds')} UTC\n"
    )
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode("utf-8", "replace")[:HOLDER_BYTES], 0)


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ROLLBACK")
    join_as_usual(connection)


def _mostly_dead(connection: duckdb.DuckDBPyConnection) -> bool:
    row = connection.execute(
        "SELECT free_blocks * block_size, total_blocks * block_size FROM pragma_database_size()"
        " WHERE database_name = 'published'"
    ).fetchone()
    return row is not None and row[0] > DEAD_BYTES and row[0] > DEAD_SHARE * row[1]


def _columns(connection: duckdb.DuckDBPyConnection, database: str, table: str) -> set[str]:
    """Return the names of a table's columns; none where there is no such table."""
    rows = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND table_name = ?",
        [database, table],
    ).fetchall()
    return {name for (name,) in rows}


def _has_this_layout(connection: duckdb.DuckDBPyConnection) -> bool:
    try:
        return connection.execute("SELECT digest FROM state.layout").fetchall() == [(LAYOUT,)]
    except duckdb.CatalogException:
        return False


def _is_foreign(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether what is attached as `state` has tables, and none that the states of all versions have."""
    rows = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'state'"
    ).fetchall()
    return bool(rows) and not {("datasets",), ("raw",), ("files",)} <= set(rows)


def first_line(error: BaseException) -> str:
    """Return an error's first line, for a message of one line."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def _rewrite(
    connection: duckdb.DuckDBPyConnection, source: Path, target: Path, options: str = NEXT_OPTIONS
) -> None:
    connection.execute(f"ATTACH '{_escaped(source)}' AS rewrite_from (READ_ONLY)")
    try:
        connection.execute(f"ATTACH '{_escaped(target)}' AS rewrite_to ({options})")
        try:
            connection.execute("COPY FROM DATABASE rewrite_from TO rewrite_to")
            connection.execute("CHECKPOINT rewrite_to")
        finally:
            connection.execute("DETACH rewrite_to")
    finally:
        connection.execute("DETACH rewrite_from")


def _forget_history(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    connection.execute(f"ATTACH '{_escaped(path)}' AS forgetting ({NEXT_OPTIONS})")
    try:
        forget_all(connection, "forgetting.")
        connection.execute("CHECKPOINT forgetting")
    finally:
        connection.execute("DETACH forgetting")


def _escaped(path: Path) -> str:
    return str(path).replace("'", "''")


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

"""Staleness: what a run would find to do, told from listings and the state alone, without reading a file."""

import time
from dataclasses import dataclass

import duckdb

from stemma.hashing import key
from stemma.resources.engine import recipes
from stemma.resources.engine.publication import first_behind, is_published
from stemma.resources.engine.raw import are_applied, list_sources, listing_fingerprint
from stemma.resources.engine.run import Run, fetch_value
from stemma.resources.purges import NO_PURGES, read_purges


@dataclass(frozen=True)
class Sources:
    """What listing says of the sources: a hash of it, and the newest file's time in seconds since 1970."""

    fingerprint: str
    newest: float

    def is_quiet(self, seconds: float) -> bool:
        """Return whether no file was touched in the last seconds: somebody may still be writing it.

        A time to come says nothing of the kind.
        """
        return not 0 <= time.time() - self.newest < seconds


@dataclass(frozen=True)
class Staleness:
    """Why the corpus is not what a run would make of it now (nothing: it is), and a hash of all that was looked at.

    `unquiet`: the files are not those of the last run, but do not count yet, since one may still be being written.
    """

    reasons: tuple[str, ...]
    signature: str
    unquiet: bool = False


def look_at_sources(run: Run) -> Sources:
    """List all sources. Raises StemmaError when one cannot be listed."""
    listings = list_sources(run, read_purges(run.warehouse.purges_path) or NO_PURGES)
    newest = max((file.mtime_ns for _source, files, _problems in listings for file in files), default=0)
    return Sources(listing_fingerprint(listings), newest / 1e9)


def staleness(run: Run, *, quiet_seconds: float = 0.0) -> Staleness:
    """Return why the corpus is stale.

    It looks at levels and not at events: whatever was changed, when and by whom, while a run went on or while
    nobody watched, it is found as long as it lasts. Rows of queries are not looked at. With `quiet_seconds`,
    sources whose newest file is younger do not count yet.

    Raises StemmaError when a source cannot be listed.
    """
    sources, current = look_at_sources(run), recipes(run.setup)
    with run.warehouse.session() as connection:
        reasons: list[str] = []
        same = "SELECT count(*) FROM state.listing WHERE fingerprint = ?"
        changed = not fetch_value(connection, same, [sources.fingerprint])
        quiet = sources.is_quiet(quiet_seconds)
        if changed and quiet:
            reasons.append("the files of the sources are not those of the last run")
        waiting = fetch_value(connection, "SELECT count(*) FROM state.waiting")
        if waiting and run.config.partitions.catch_up:
            reasons.append(f"{waiting} documents of other days wait")
        if not are_applied(run, connection):
            reasons.append("the list of purged documents is not that of the last run")
        behind = first_behind(connection, current)
        if behind:
            reasons.append(
                f"{behind} was made with other settings or of an older state of the dataset above it"
            )
        elif not is_published(run, connection):
            reasons.append("the last state is not published")
        return Staleness(
            tuple(reasons),
            key(sources.fingerprint, *current.values(), *_versions(connection)).hex(),
            unquiet=changed and not quiet,
        )


def _versions(connection: duckdb.DuckDBPyConnection) -> list[str]:
    rows = connection.execute("SELECT name, version, recipe FROM state.datasets ORDER BY name").fetchall()
    return [f"{name} {version} {recipe}" for name, version, recipe in rows]

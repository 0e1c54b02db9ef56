"""A small corpus to work on: a folder of documents, a configuration, a warehouse, and runs without Dagster."""

import builtins
import contextlib
import copy
import dataclasses
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import settings

from stemma.chunking import chunker
from stemma.cleaning import clean
from stemma.cleaning.filters import metrics
from stemma.config import LAYERS, Config, SourceConfig, load_config, to_toml
from stemma.deduplication import signatures
from stemma.embedding import feature_hashing
from stemma.incremental.counts import Counts
from stemma.incremental.days import ALL_DAYS, Days
from stemma.lineage.checks import BLOCKING, run_check
from stemma.lineage.comparison import TABLES, Comparison, compare_files
from stemma.lineage.views import VIEWS
from stemma.resources.engine import DATASETS, Publication, Run, Setup, run_all
from stemma.resources.engine.audit import compare_states
from stemma.resources.engine.run import silent
from stemma.resources.warehouse import Warehouse

NOTHING = {"raw": 0, "cleaned": 0, "deduplicated": 0, "chunked": 0, "embedded": 0}
"""What a run computes that has nothing to do."""

# Views whose tables have columns of history, or numbers that mean nothing.
NEEDED = {"main.cleaned", "lineage.decisions", "search.postings"}
READER = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}

_WORDS = """
river stone lamp winter garden letter engine silver bridge window market cotton thunder mirror
candle harbour violin copper meadow lantern ticket barrel island pepper saddle anchor basket feather
hammer kettle ladder needle orchard pillow quarry ribbon shovel temple valley walnut almond beacon
cellar
"""
WORDS = _WORDS.split()


def sentence(seed: object, words: int) -> str:
    """Return `words` words, the same for the same seed and hardly any five in a row for another."""
    chosen = random.Random(str(seed))
    return " ".join(chosen.choice(WORDS) + chosen.choice("abcdefghij") for _ in range(words))


def long_document(seed: object, paragraphs: int) -> str:
    """Return a document of paragraphs of 40 words each, which is many chunks when chunks are small."""
    return "\n\n".join(sentence(f"{seed}-{number}", 40).capitalize() + "." for number in range(paragraphs))


def examples(number: int) -> int:
    """Return how many examples of a property are looked at: all of them in `make test-slow`, else a quarter."""
    return number if settings.get_current_profile_name() == "random" else max(2, number // 4)


def slow(*parameters: Any) -> list[Any]:
    """Mark cases of a parametrized test for the slow suite: each of them is one parameter, or a tuple of several."""
    mark = pytest.mark.slow
    return [pytest.param(*(p if isinstance(p, tuple) else (p,)), marks=mark) for p in parameters]


@dataclass
class Result:
    """What a run did."""

    run_id: str
    counts: dict[str, Counts]
    publication: Publication

    @property
    def computed(self) -> dict[str, int]:
        """Rows computed by each dataset's stage."""
        return {name: counts.rows_computed for name, counts in self.counts.items()}

    @property
    def warnings(self) -> list[str]:
        """What the run warned of."""
        return [warning for counts in self.counts.values() for warning in counts.warnings]


class Corpus:
    """One folder of documents below `root` as the source "docs", and its warehouse. Sections may be set:

    Corpus(root, chunk={"max_tokens": 150}); corpus.set(deduplicate={"threshold": 0.8}).
    """

    def __init__(self, root: Path, **sections: dict[str, Any]) -> None:
        self.root = root
        self.docs = root / "docs"
        self.docs.mkdir(parents=True, exist_ok=True)
        self.path = root / ".stemma" / "corpus.duckdb"
        self.sources = [SourceConfig("docs", str(self.docs))]
        self._sections: dict[str, dict[str, Any]] = {"embed": {"model": "hash:384"}}
        self.threads = 1
        # Whether no code changes while the corpus lives, so that recipes need not be worked out for each run.
        self.steady = False
        # Whether runs compute a few remembered rows again, as those of users do: a tenth of a small run.
        self.audit = False
        # What of the cleaner's recipe is raised by hand, as for a change that it cannot see.
        self.cleaner_version = 1
        # Contents of documents that were deleted.
        self.trash: list[bytes] = []
        self._setups: dict[str, Setup] = {}
        self._numbers = itertools.count(1)
        self.set(**sections)

    # -- documents ---------------------------------------------------------------------------------------------

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a document; the name may have folders."""
        path = self.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def fill(self, count: int, words: int = 30, folder: str = "") -> list[str]:
        """Write `count` documents of random words; returns their names."""
        names = [f"{folder}{'/' if folder else ''}doc{number:03}.txt" for number in range(count)]
        for name in names:
            self.write(name, sentence(name, words))
        return names

    def delete(self, name: str) -> None:
        """Delete a document or a folder."""
        path = self.docs / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def rename(self, old: str, new: str) -> None:
        """Rename or move a document or a folder."""
        (self.docs / new).parent.mkdir(parents=True, exist_ok=True)
        (self.docs / old).rename(self.docs / new)

    # -- configuration -----------------------------------------------------------------------------------------

    def split_sources(self, *folders: str, labels: str) -> None:
        """Make each folder a source of its own, with its name as the label of this name."""
        self.sources = [
            SourceConfig(name, str(self.docs / name), labels=((labels, name),)) for name in folders
        ]

    def set(self, **sections: dict[str, Any]) -> None:
        """Set keys of sections of the configuration; those within [deduplicate] go by their own names."""
        for name, keys in sections.items():
            self._sections.setdefault(name, {}).update(keys)

    def settings(self) -> tuple[Any, ...]:
        """Return all that is configured, for `restore`."""
        return copy.deepcopy(self._sections), list(self.sources), self.cleaner_version

    def restore(self, settings: tuple[Any, ...]) -> None:
        """Configure all as it was."""
        sections, sources, self.cleaner_version = settings
        self._sections, self.sources = copy.deepcopy(sections), list(sources)

    def config(self) -> Config:
        """Return the configuration, through stemma.toml and back."""
        config = Config(sources=tuple(self.sources), directory=self.root)
        for name, keys in self._sections.items():
            if name in LAYERS:
                inner = dataclasses.replace(getattr(config.deduplicate, name), **keys)
                name, keys = "deduplicate", {name: inner}
            config = dataclasses.replace(config, **{name: dataclasses.replace(getattr(config, name), **keys)})
        config = dataclasses.replace(config, warehouse=dataclasses.replace(config.warehouse, path=self.path))
        file = self.root / "stemma.toml"
        file.write_text(to_toml(config))
        return load_config(file)

    def _setup(self) -> Setup:
        config = self.config()
        name = f"{self.cleaner_version} {config!r}"
        setup = self._setups.get(name) if self.steady else None
        if setup is None:
            setup = self._setups[name] = Setup.of(config)
            version = self.cleaner_version
            setup.__dict__["clean"] = dataclasses.replace(setup.clean, version=version)
        return setup

    # -- runs --------------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        allow_deletes: bool = False,
        days: Days = ALL_DAYS,
        progress: Callable[[str, int, int], None] = silent,
    ) -> Result:
        """Update and publish all datasets."""
        run = self.start(allow_deletes=allow_deletes, days=days, progress=progress)
        try:
            publication = run_all(run)
        finally:
            run.warehouse.close()
        return Result(run.run_id, run.counts, publication)

    def update(
        self, last: str, *, path: Path | None = None, before: dict[str, Callable[[], None]] | None = None
    ) -> dict[str, Counts]:
        """Update the datasets as far as `last`, whatever vanished, and publish nothing; returns what was done.

        `before` names what is called before a dataset's update.
        """
        run = self.start(path=path, allow_deletes=True)
        try:
            for name, update_dataset in DATASETS.items():
                (before or {}).get(name, lambda: None)()
                update_dataset(run)
                if name == last:
                    break
        finally:
            run.warehouse.close()
        return run.counts

    def start(
        self,
        *,
        path: Path | None = None,
        allow_deletes: bool = False,
        days: Days = ALL_DAYS,
        progress: Callable[[str, int, int], None] = silent,
    ) -> Run:
        """Return a run that hasn't done anything yet."""
        warehouse = Warehouse(path or self.path)
        # A corpus of a few documents gains nothing by threads, and pays for them with each statement.
        warehouse.connection.execute(f"SET threads = {self.threads}")
        return Run(
            f"run-{next(self._numbers)}",
            self._setup(),
            warehouse,
            progress=progress,
            allow_deletes=allow_deletes,
            days=days,
            audit=self.audit,
        )

    @property
    def purges(self) -> Path:
        """The list of what was purged."""
        return self.path.with_suffix(".purged.jsonl")

    # -- what came of it ---------------------------------------------------------------------------------------

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the published file as any reader would."""
        with duckdb.connect(str(self.path), read_only=True, config=READER) as connection:
            return connection.execute(sql).fetchall()

    def value(self, sql: str) -> Any:
        """Return the single value of a query."""
        ((value,),) = self.query(sql)
        return value

    def count(self, table: str) -> int:
        """Return the rows of a published table."""
        return self.value(f"SELECT count(*) FROM {table}")

    @contextlib.contextmanager
    def state(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the private state for writing, to look into it or to damage it."""
        with duckdb.connect(str(self.path.with_suffix(".work") / "state.duckdb")) as connection:
            yield connection

    def failed_checks(self) -> list[str]:
        """Return the names of the blocking checks that the published file fails."""
        return failed_checks(self.path)

    def differences(self) -> list[Comparison]:
        """Rebuild from nothing beside; return the tables that differ from the published ones and from the state."""
        with tempfile.TemporaryDirectory(prefix="stemma-rebuild-") as folder:
            rebuilt = self.rebuild(Path(folder))
            compared = compare_files(self.path, rebuilt)
            compared += compare_states(Warehouse(self.path), Warehouse(rebuilt))
        return [table for table in compared if table.differs]

    def rebuild(self, folder: Path) -> Path:
        """Make the corpus of the sources and the configuration as they are now in another folder."""
        run = self.start(path=folder / self.path.name)
        if self.purges.exists():
            shutil.copyfile(self.purges, run.warehouse.purges_path)
        try:
            run_all(run)
        finally:
            run.warehouse.close()
        return run.warehouse.path

    def fingerprints(self) -> dict[str, tuple[Any, ...]]:
        """Return rows and a hash of each published table, without what a rebuild has otherwise.

        Views that are made of these tables alone are left out: they take as long as all the rest.
        """
        with duckdb.connect(str(self.path), read_only=True, config=READER) as connection:
            return {
                table: connection.execute(
                    f"SELECT count(*), sum(hash({', '.join(columns)})::HUGEINT) FROM {table}"
                ).fetchall()[0]
                for table, columns in TABLES.items()
                if table not in VIEWS or table in NEEDED
            }

    def family_differences(self) -> dict[str, list[tuple[Any, ...]]]:
        """Rebuild families beside, and return the rows of them and of their index that only one of the two has."""
        with tempfile.TemporaryDirectory(prefix="stemma-rebuild-") as folder:
            path = Path(folder) / "corpus.duckdb"
            self.update("deduplicated", path=path)
            with self.state() as connection:
                connection.execute(
                    f"ATTACH '{path.with_suffix('.work')}/state.duckdb' AS rebuilt (READ_ONLY)"
                )
                found = {name: _only_in_one(connection, name, rows) for name, rows in FAMILY_TABLES.items()}
        return {name: rows for name, rows in found.items() if rows}


# What is a function of the live documents and the configuration alone: a text may have come from another content.
FAMILY_TABLES = {
    "deduplicated": "* EXCLUDE (run_id, input_hash)",
    **{f"dedup_{name}": "*" for name in ("documents", "bands", "pairs", "pending", "index")},
    "passages": "*",
    "errors": "* EXCLUDE (run_id)",
}


def _only_in_one(connection: duckdb.DuckDBPyConnection, name: str, columns: str) -> list[tuple[Any, ...]]:
    ours, others = f"(SELECT {columns} FROM {name})", f"(SELECT {columns} FROM rebuilt.{name})"
    return connection.execute(
        f"(FROM {ours} EXCEPT ALL FROM {others}) UNION ALL (FROM {others} EXCEPT ALL FROM {ours}) LIMIT 20"
    ).fetchall()


def failed_checks(path: Path) -> list[str]:
    """Return the names of the blocking checks that a published file fails."""
    with duckdb.connect(str(path), read_only=True, config=READER) as connection:
        return [name for name, query in BLOCKING.items() if not run_check(connection, name, query).passed]


def published_bytes(path: Path) -> tuple[int, bytes]:
    """Return inode and content of the published file: equal as long as nobody has touched it."""
    return os.stat(path).st_ino, path.read_bytes()


# Poison: a word that makes a helper deep inside one stage raise for the text that holds it.

POISON = {stage: f"poison{stage}" for stage in ("cleaned", "deduplicated", "chunked", "embedded")}
FLAKY = "STEMMA_TEST_FLAKY"
"""While this variable is "time", "memory" or an error's name, the poison raises that; empty, it does no harm."""

_measure = metrics.measure
_word_blocks = signatures.word_blocks
_chunk_groups = chunker.groups
_embed_groups = feature_hashing.groups


def _swallow(stage: str, texts: Sequence[str]) -> None:
    if any(POISON[stage] in text for text in texts):
        reason = os.environ.get(FLAKY)
        if reason is None:
            raise ValueError("poison found")
        if reason:
            kinds = {"time": TimeoutError, "memory": MemoryError}
            raise (kinds.get(reason) or getattr(builtins, reason))("not now")


def _poisoned_measure(texts: Sequence[str], *more: Any) -> Any:
    _swallow("cleaned", texts)
    return _measure(texts, *more)


def _poisoned_blocks(texts: Sequence[str]) -> Any:
    _swallow("deduplicated", texts)
    return _word_blocks(texts)


def _poisoned_chunk_groups(texts: Sequence[str]) -> Any:
    _swallow("chunked", texts)
    return _chunk_groups(texts)


def _poisoned_embed_groups(texts: Sequence[str]) -> Any:
    _swallow("embedded", texts)
    return _embed_groups(texts)


_PLACES: dict[str, tuple[Any, str, Any]] = {
    "cleaned": (clean, "measure", _poisoned_measure),
    "deduplicated": (signatures, "word_blocks", _poisoned_blocks),
    "chunked": (chunker, "groups", _poisoned_chunk_groups),
    "embedded": (feature_hashing, "groups", _poisoned_embed_groups),
}


def poison(monkeypatch: pytest.MonkeyPatch, *stages: str) -> None:
    """Make a helper of each of these stages raise for every text that holds the stage's poison."""
    for stage in stages:
        monkeypatch.setattr(*_PLACES[stage])

"""After any history the corpus equals a rebuild from nothing, in every table."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from harness import NOTHING, POISON, WORDS, Corpus, examples, poison, sentence, slow
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from stemma.config import LAYERS, SemanticConfig, SourceConfig
from stemma.deduplication import candidates
from stemma.errors import StemmaError
from stemma.incremental.days import Days
from stemma.resources.engine import deduplicated
from stemma.resources.engine.duplicates import moves, pairs
from stemma.resources.warehouse import Warehouse

ANCHOR = (
    "The anchor of this small corpus is a plain English sentence that no rule and no stage will ever refuse."
)
GERMAN = (
    "Der Fluss fließt langsam durch das Tal, und am Abend leuchten die Fenster der kleinen Stadt am Ufer."
)

NAMES = [
    "a.txt",
    "b.md",
    "x/c.txt",
    "x/d.txt",
    "x/2024-05-01-e.txt",
    "y/2023-01-31-f.txt",
    "y/g.txt",
    "../more/a.txt",
    "../more/h.txt",
]
# What may be set: a section, and keys of it that are set together.
FAMILY_SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *(("deduplicate", {"threshold": threshold}) for threshold in (0.5, 0.7, 0.8, 0.9, 1.0)),
    *(("deduplicate", {"keep": keep, "quality": None}) for keep in ("oldest", "newest", "longest", "best")),
    *(("deduplicate", {"keep": "best", "quality": quality}) for quality in ("words", "-language_score")),
    *(("deduplicate", {"scope": scope}) for scope in ("global", "source")),
    *(("deduplicate", {"priority": names}) for names in ((), ("more",), ("docs", "more"), ("more", "docs"))),
    *(("deduplicate", {"numbers": numbers}) for numbers in ("ignore", "compare")),
    *(("deduplicate", {"layers": layers}) for layers in (("exact", "near"), ("exact",), ("near",))),
    *(("deduplicate", {"layers": ("exact", "near", layer)}) for layer in LAYERS[2:]),
    ("deduplicate", {"layers": LAYERS}),
    *(("contained", {"min_shingles": count}) for count in (5, 50)),
    *(("edit", {"max_characters": count}) for count in (256, 1_000)),
    *(("edit", {"threshold": threshold}) for threshold in (0.7, 0.9)),
    *(("passage", {"cut": cut, "min_words": 10}) for cut in (False, True)),
    *(("deduplicate", {"semantic": SemanticConfig(category=by)}) for by in (None, "source", "language")),
    ("deduplicate", {"shingle_words": 3}),
    ("deduplicate", {"shingle_words": 5}),
    *(("docs", {"layers": layers}) for layers in ((), ("none",), ("exact",), ("near",), ("contained",))),
    *(("docs", {"thresholds": thresholds}) for thresholds in ((), (("near", 0.5),), (("near", 0.9),))),
    *(("more", {"layers": layers}) for layers in ((), ("none",), ("exact", "near"))),
    *(("more", {"thresholds": thresholds}) for thresholds in ((), (("near", 0.6),), (("near", 1.0),))),
]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *FAMILY_SETTINGS,
    *(("deduplicate", {"permutations": permutations}) for permutations in (128, 64)),
    *(("chunk", {"max_tokens": tokens}) for tokens in (20, 30, 200)),
    *(("chunk", {"overlap": tokens}) for tokens in (0, 5)),
    *(("chunk", {"strategy": strategy}) for strategy in ("structure", "recursive", "fixed")),
    *(("clean", {"languages": languages}) for languages in ((), ("en",))),
    *(("clean", {"repair": repair}) for repair in (True, False)),
    *(("embed", {"model": model}) for model in ("hash:384", "hash:16")),
]


# Folders of one source, and the other source, which a folder may move to as a whole.
FOLDERS = ["x", "y", "z", "../more/x"]
# All days, in parts: the names, records and file times of the documents below are of these days.
BOUNDS = [date(2023, 6, 1), date(2023, 11, 16), date(2024, 2, 2), date(2024, 12, 31)]
DAYS = [
    Days(None, BOUNDS[0]),
    *(Days(before + timedelta(1), last) for before, last in pairwise(BOUNDS)),
    Days(BOUNDS[-1] + timedelta(1), None),
]
OTHER_CLEANER = ("cleaner", {})


@st.composite
def relatives(draw: st.DrawFn) -> str:
    """Draw a text that is like others: from 0.50 to 0.95, or but for a number, or not at all."""
    start = draw(st.sampled_from([0, 0, 5, 10, 15]))
    words = sentence(draw(st.integers(0, 1)), 80).split()[
        start : start + draw(st.sampled_from([60, 60, 65, 10]))
    ]
    for position in draw(st.lists(st.sampled_from([0, 4, 30, 59]), max_size=2, unique=True)):
        words[min(position, len(words) - 1)] = draw(st.sampled_from([*WORDS[:2], "4711", "4712"]))
    return " ".join(words)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw a document: one of few base texts, often with a few words changed, seldom with poison in it."""
    kind = draw(st.sampled_from(["base"] * 10 + ["german", "empty", "blank", "markup"]))
    if kind in ("german", "empty", "blank"):
        return {"german": GERMAN, "empty": "", "blank": " \n\t\n"}[kind]
    text = draw(relatives())
    if draw(st.integers(0, 9)) == 0:
        text = f"{text[:-20]} {draw(st.sampled_from([*POISON.values()]))}"
    if kind == "markup":
        return f"# Title of it\n\n{text.upper()}\n\n## Part\n\n{text}\n"
    return text + draw(st.sampled_from(["", "\n", "  \n\n", "\u200b"]))


def names() -> st.SearchStrategy[str]:
    return st.sampled_from(NAMES)


def records() -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(st.sampled_from(["r1", "r2", "r3", "broken"]), texts()), max_size=5)


OPERATIONS = st.one_of(
    st.tuples(st.just("write"), names(), texts()),
    st.tuples(st.just("write"), names(), texts()),
    st.tuples(st.just("delete"), names()),
    st.tuples(st.just("rename"), names(), names()),
    st.tuples(st.just("copy"), names(), names()),
    st.tuples(st.just("touch"), names(), st.integers(1, 3)),
    st.tuples(st.just("records"), records()),
    st.tuples(st.just("move folder"), st.sampled_from(FOLDERS), st.sampled_from(FOLDERS)),
    st.tuples(st.just("revive"), names()),
    st.sampled_from([("set", *setting) for setting in SETTINGS]),
    st.tuples(st.just("clean otherwise")),
    st.sampled_from([("there and back", *setting) for setting in (*SETTINGS, OTHER_CLEANER)]),
    st.tuples(st.just("run")),
    st.tuples(st.just("run")),
    st.tuples(st.just("run days"), st.sampled_from(DAYS)),
    st.tuples(st.just("run all days"), st.permutations(DAYS)),
    st.tuples(st.just("interrupted run"), st.integers(1, 9)),
    st.tuples(st.just("broken off run"), st.integers(1, 400)),
)


class Interrupted(BaseException):
    """What a user's Ctrl-C looks like from inside."""


def apply(corpus: Corpus, operation: tuple[Any, ...]) -> None:
    """Do one thing to the corpus; what makes no sense now is passed over."""
    kind, *arguments = operation
    if kind == "write":
        corpus.write(*arguments)
    elif kind == "delete":
        path = corpus.docs / arguments[0]
        if path.exists():
            corpus.trash.append(path.read_bytes())
            path.unlink()
    elif kind in ("rename", "copy"):
        old, new = (corpus.docs / name for name in arguments)
        if old.exists() and old != new:
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new) if kind == "rename" else shutil.copyfile(old, new)
    elif kind == "touch":
        if (corpus.docs / arguments[0]).exists():
            day = 1_700_000_000 + 86_400 * arguments[1]
            os.utime(corpus.docs / arguments[0], (day, day))
    elif kind == "records":
        lines = [
            "{broken" if key == "broken" else json.dumps({"id": key, "text": text, "date": "2024-02-02"})
            for key, text in arguments[0]
        ]
        corpus.write("rows.jsonl", "\n".join(lines))
    elif kind == "move folder":
        old, new = (corpus.docs / name for name in arguments)
        if old.exists() and not new.exists():
            old.rename(new)
    elif kind == "revive":
        if corpus.trash:
            corpus.write(arguments[0], corpus.trash.pop())
    elif kind == "set":
        set_keys(corpus, *arguments)
    elif kind == "clean otherwise":
        corpus.cleaner_version = 3 - corpus.cleaner_version
    elif kind == "there and back":
        there_and_back(corpus, *arguments)
    elif kind == "run":
        corpus.run(allow_deletes=True)
    elif kind == "run days":
        corpus.run(allow_deletes=True, days=arguments[0])
    elif kind == "run all days":
        for days in arguments[0]:
            corpus.run(allow_deletes=True, days=days)
    elif kind == "interrupted run":
        interrupt(corpus, arguments[0])
    elif kind == "broken off run":
        break_off(corpus, arguments[0])


def there_and_back(corpus: Corpus, place: str, keys: dict[str, Any]) -> None:
    """Run with another setting or cleaner, and again with that of before, which computes nothing anew."""
    corpus.run(allow_deletes=True)
    before = corpus.settings()
    if place == OTHER_CLEANER[0]:
        corpus.cleaner_version += 1
    else:
        set_keys(corpus, place, keys)
    corpus.run(allow_deletes=True)
    corpus.restore(before)
    assert corpus.run(allow_deletes=True).computed == NOTHING


def set_keys(corpus: Corpus, place: str, keys: dict[str, Any]) -> None:
    """Set keys of a section, or of what a source says of duplicates."""
    names = [source.name for source in corpus.sources]
    if place not in names:
        corpus.set(**{place: keys})
        return
    source = corpus.sources[names.index(place)]
    own = dataclasses.replace(source.deduplicate, **keys)
    corpus.sources[names.index(place)] = dataclasses.replace(source, deduplicate=own)


def interrupt(corpus: Corpus, steps: int) -> None:
    """Run, and stop in the middle: at the given report of progress, if there are as many."""
    left = steps

    def progress(_dataset: str, _done: int, _total: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interrupted

    with contextlib.suppress(Interrupted):
        corpus.run(allow_deletes=True, progress=progress)


class Breaking:
    """A connection that is broken off at one of its statements."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, numbers: Iterator[int], at: int) -> None:
        self._connection, self._numbers, self._at = connection, numbers, at

    def execute(self, *arguments: Any) -> Any:
        # What ends a transaction and puts away its database is left to the end, as with Ctrl-C.
        if (
            not str(arguments[0]).startswith(("ROLLBACK", "DETACH", "USE"))
            and next(self._numbers) == self._at
        ):
            raise Interrupted
        # DuckDB looks for it among the variables of whoever asks: see `execute_over`.
        arriving = sys._getframe(1).f_locals.get("arriving")  # noqa: F841
        return self._connection.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def break_off(corpus: Corpus, statement: int) -> None:
    """Run, and stop before the statement of this number, if there are as many."""
    real, numbers = Warehouse.connection.fget, itertools.count(1)
    assert real is not None
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Interrupted):
        patch.setattr(
            Warehouse, "connection", property(lambda self: Breaking(real(self), numbers, statement))
        )
        corpus.run(allow_deletes=True)


def lives_through(operations: list[tuple[Any, ...]], *, each_run: bool = False) -> int:
    """Apply a history to a corpus, run, and see that it equals its rebuild; returns its near-duplicates."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        poison(patch, *POISON)
        corpus = Corpus(Path(folder), chunk={"max_tokens": 30})
        corpus.threads = 2
        corpus.steady = True
        corpus.sources.append(SourceConfig("more", str(corpus.root / "more")))
        corpus.write("../more/anchor.md", ANCHOR)
        corpus.write("anchor.md", f"# Another\n\n{ANCHOR} Here it goes on a little.")
        for operation in operations:
            apply(corpus, operation)
            if each_run and operation[0] in WHOLE_RUNS:
                assert corpus.differences() == []
                assert corpus.run().computed == NOTHING
        corpus.run(allow_deletes=True)
        assert corpus.differences() == []
        assert corpus.run().computed == NOTHING
        return corpus.value("SELECT count(*) FROM lineage.duplicates WHERE method = 'near'")


# After these, nothing of the sources waits.
WHOLE_RUNS = ("run", "run all days", "there and back")
HISTORY = st.lists(OPERATIONS, min_size=6, max_size=24)
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


BASE = sentence(0, 60)
EVERYTHING: list[tuple[Any, ...]] = [
    ("write", "a.txt", BASE),
    ("write", "b.md", BASE.replace(BASE.split()[30], "changed")),
    ("write", "x/2024-05-01-e.txt", sentence(1, 60)),
    ("records", [("r1", sentence(2, 60)), ("broken", "")]),
    ("run",),
    ("rename", "a.txt", "../more/a.txt"),
    ("delete", "x/2024-05-01-e.txt"),
    ("broken off run", 150),
    ("revive", "y/g.txt"),
    ("run days", DAYS[-1]),
    ("there and back", "chunk", {"max_tokens": 20}),
    ("there and back", *OTHER_CLEANER),
    ("set", "deduplicate", {"threshold": 0.5}),
    ("move folder", "y", "../more/x"),
    ("interrupted run", 5),
    ("run all days", DAYS[::-1]),
]


@pytest.mark.parametrize("each_run", [False, *slow(True)])
def test_a_history_of_everything_equals_a_rebuild(each_run: bool) -> None:
    assert lives_through(EVERYTHING, each_run=each_run) > 0


@settings(max_examples=examples(4), **QUIET)
@given(HISTORY)
def test_any_history_equals_a_rebuild(operations: list[tuple[Any, ...]]) -> None:
    lives_through(operations)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("STEMMA_TEST_HISTORIES", "150")), **QUIET)
@given(HISTORY)
def test_many_histories_equal_a_rebuild_after_each_run(operations: list[tuple[Any, ...]]) -> None:
    lives_through(operations, each_run=True)


# ---- families alone: more histories, for they need no chunks and vectors, and the index is compared as well

KEYS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
FAMILY_OPERATIONS = st.one_of(
    *[st.tuples(st.just("put"), st.sampled_from(["docs", "more"]), KEYS, relatives(), st.integers(0, 3))] * 4,
    *[st.tuples(st.just("drop"), st.sampled_from(["docs", "more"]), KEYS)] * 2,
    st.tuples(st.just("fail"), KEYS),
    st.tuples(st.just("move"), KEYS),
    *[st.sampled_from([("set", *setting) for setting in FAMILY_SETTINGS])] * 2,
    *[st.tuples(st.just("run"))] * 2,
    *[st.tuples(st.just("crash"), st.integers(1, 6))] * 2,
)
# In buckets of more than three members not all are compared; in larger ones fewer.
CROWDED = {"PAIRS_IN_BUCKET": 6, "WITNESSES": 1}
FAMILY_HISTORY = st.tuples(
    st.lists(FAMILY_OPERATIONS, min_size=12, max_size=30),
    st.sampled_from([{"MEASURED_AT_ONCE": 0}, {"MEASURED_AT_ONCE": 1}, {}]),
    st.sampled_from([{"VERIFIED_PAIRS": 1, "COMPARED_PAIRS": 2}, {}]),
    st.sampled_from([{}, CROWDED, CROWDED]),
)


@dataclass
class TwoSources:
    """Records of two sources, and runs of them that stop in the middle or don't."""

    corpus: Corpus
    constants: tuple[dict[str, int], dict[str, int]]
    rows: dict[str, dict[str, tuple[str, int]]] = field(default_factory=lambda: {"docs": {}, "more": {}})

    def apply(self, operation: tuple[Any, ...]) -> None:
        """Do one thing to the records, the configuration or the families."""
        kind, *arguments = operation
        docs, more = self.rows["docs"], self.rows["more"]
        if kind == "put":
            source, key, text, day = arguments
            self.rows[source][key] = (text, day)
        elif kind == "drop":
            self.rows[arguments[0]].pop(arguments[1], None)
        elif kind == "fail" and arguments[0] in docs:
            text, day = docs[arguments[0]]
            docs[arguments[0]] = (f"{text} {POISON['deduplicated']}", day)
        elif kind == "move":
            if arguments[0] in docs:
                more[arguments[0]] = docs.pop(arguments[0])
        elif kind == "set":
            set_keys(self.corpus, *arguments)
        elif kind == "crash":
            self.run(stop_at=arguments[0])
        elif kind == "run":
            self.run()

    def run(self, *, stop_at: int = 0) -> None:
        """Bring families up to date, and stop at the given session of theirs with the state."""
        for source, rows in self.rows.items():
            lines = [
                json.dumps(
                    {"id": key, "text": text, "date": f"2024-01-0{day}"} if day else {"id": key, "text": text}
                )
                for key, (text, day) in [("anchor", (f"{ANCHOR} {source}", 0)), *rows.items()]
            ]
            self.corpus.write(f"../{source}/rows.jsonl", "\n".join(lines))
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Interrupted):
            for module, constants in zip((deduplicated, pairs), self.constants, strict=True):
                for name, value in constants.items():
                    patch.setattr(module, name, value)
            self.corpus.update("deduplicated", before={"deduplicated": lambda: stop(patch, stop_at)})


def stop(patch: pytest.MonkeyPatch, at: int) -> None:
    """Let the session with the state of this number (from 1), counted from now, not begin; 0 stops none."""
    begin, number = Warehouse.session, itertools.count(1)

    def session(warehouse: Warehouse) -> Any:
        if next(number) == at:
            raise Interrupted
        return begin(warehouse)

    patch.setattr(Warehouse, "session", session)


def families_live_through(
    operations: list[tuple[Any, ...]],
    *constants: dict[str, int],
    buckets: dict[str, int],
    each_run: bool = False,
) -> int:
    """Apply a history to two sources and see that families and index equal a rebuild; returns the near-duplicates."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        poison(patch, "deduplicated")
        for name, value in buckets.items():
            patch.setattr(candidates, name, value)
        patch.setattr(moves, "CHANGED_NODES", 2)
        corpus = Corpus(Path(folder), engine={"workers": 0})
        corpus.steady = True
        corpus.sources.append(SourceConfig("more", str(corpus.root / "more")))
        sources = TwoSources(corpus, constants)
        for operation in operations:
            sources.apply(operation)
            if each_run and operation[0] == "run":
                assert corpus.family_differences() == {}
        sources.run()
        assert corpus.family_differences() == {}
        with corpus.state() as connection:
            check_witnesses(corpus, connection)
            ((near,),) = connection.execute(
                "SELECT count(*) FROM deduplicated WHERE method = 'near'"
            ).fetchall()
    return near


def check_witnesses(corpus: Corpus, connection: duckdb.DuckDBPyConnection) -> None:
    """See that each document that is removed has a witness that is kept, of a source as precious."""
    priority = corpus.config().deduplicate.priority
    rows = connection.execute(
        """SELECT w.kept, r.source, s.source FROM deduplicated AS d
        LEFT JOIN deduplicated AS w ON w.document_id = d.kept_document_id
        JOIN raw AS r ON r.document_id = d.document_id LEFT JOIN raw AS s ON s.document_id = w.document_id
        WHERE NOT d.kept"""
    ).fetchall()
    for witness_is_kept, source, of_witness in rows:
        assert witness_is_kept
        places = [
            priority.index(name) if name in priority else len(priority) for name in (of_witness, source)
        ]
        assert places[0] <= places[1]


def test_any_history_of_families_equals_a_rebuild() -> None:
    near: list[int] = []

    @seed(2)
    @settings(max_examples=4, **QUIET)
    @given(FAMILY_HISTORY)
    def check(history: tuple[Any, ...]) -> None:
        *operations, buckets = history
        near.append(families_live_through(*operations, buckets=buckets))

    check()
    assert sum(number > 0 for number in near) >= len(near) // 3


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("STEMMA_TEST_HISTORIES", "400")), **QUIET)
@given(FAMILY_HISTORY)
def test_many_histories_of_families_equal_a_rebuild_after_each_run(history: tuple[Any, ...]) -> None:
    *operations, buckets = history
    families_live_through(*operations, buckets=buckets, each_run=True)


@pytest.mark.slow
@pytest.mark.parametrize("measured_at_once", [0, 1])
def test_families_are_the_same_wherever_a_run_stopped(tmp_path: Path, measured_at_once: int) -> None:
    corpus = Corpus(tmp_path, engine={"workers": 0})
    corpus.steady = True
    corpus.sources.append(SourceConfig("more", str(corpus.root / "more")))
    sources = TwoSources(corpus, ({"MEASURED_AT_ONCE": measured_at_once}, {"VERIFIED_PAIRS": 1}))
    words = sentence("stop", 160).split()
    texts = [" ".join(words[5 * number : 5 * number + 60]) for number in range(20)]
    sources.rows["docs"] = {key: (texts[number], 0) for number, key in enumerate("abcdef")}
    for stop_at in range(1, 7):
        # While the run that stops meets a document that left and two that came, other ones do before the next.
        sources.rows["docs"].pop(min(sources.rows["docs"]))
        sources.rows["docs"][f"new{stop_at}"] = (texts[stop_at + 5], 0)
        sources.rows["more"][f"new{stop_at}"] = (texts[stop_at + 6], stop_at)
        if stop_at == 5:
            corpus.set(deduplicate={"threshold": 0.6})
        sources.run(stop_at=stop_at)
        if stop_at == 5:
            corpus.set(deduplicate={"threshold": 0.7})
        sources.rows["docs"].pop(min(sources.rows["docs"]))
        sources.rows["docs"][f"old{stop_at}"] = (texts[stop_at + 7], 0)
        sources.rows["more"].pop(f"new{stop_at - 1}", None)
        sources.run()
        assert corpus.family_differences() == {}
    with corpus.state() as connection:
        assert connection.execute("SELECT count(*) FROM deduplicated WHERE method = 'near'").fetchone() != (
            0,
        )


@pytest.mark.slow
def test_two_configurations_in_turn_equal_a_rebuild(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    base = sentence("base", 50).split()
    for number in range(8):
        words = base.copy()
        words[10 + number % 4] = WORDS[number]
        corpus.write(f"doc{number}.txt", " ".join(words))
    one = {
        "deduplicate": {"threshold": 0.6, "keep": "oldest"},
        "chunk": {"max_tokens": 30},
        "embed": {"model": "hash:384"},
    }
    two = {
        "deduplicate": {"threshold": 0.9, "keep": "longest"},
        "chunk": {"max_tokens": 20},
        "embed": {"model": "hash:32"},
    }
    for turn in range(3):
        corpus.set(**(one, two)[turn % 2])
        corpus.write(f"doc{turn}.txt", sentence(turn, 30))
        corpus.rename(f"doc{turn + 4}.txt", f"renamed{turn}.txt")
        corpus.run()
    corpus.set(**two)
    corpus.run()
    assert corpus.differences() == []


@pytest.mark.slow
def test_chains_of_near_duplicates_equal_a_rebuild_as_links_come_and_go(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"threshold": 0.7})
    links: list[str] = []
    words = sentence("chain", 40).split()
    for number in range(8):
        words[5 * number : 5 * number + 1] = [WORDS[number]]
        links.append(" ".join(words))
    changes: list[Callable[[], Any]] = [
        lambda: [corpus.write(f"{number}.txt", links[number]) for number in (0, 2, 4, 6)],
        lambda: [corpus.write(f"{number}.txt", links[number]) for number in (1, 3, 5, 7)],
        lambda: corpus.delete("3.txt"),
        lambda: corpus.write("again.txt", links[3]),
        lambda: corpus.delete("0.txt"),
    ]
    for number, change in enumerate(changes):
        change()
        corpus.run()
        if number % 2 == 0:
            assert corpus.differences() == []
    assert corpus.count("lineage.duplicates") > 0


def test_a_run_that_failed_leaves_nothing_behind(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    names = corpus.fill(12)
    corpus.run()
    for name in names[:6]:
        corpus.delete(name)
    corpus.write("new.txt", sentence("new", 30))
    with pytest.raises(StemmaError, match="would vanish"):
        corpus.run()
    for name in names[:6]:
        corpus.write(name, sentence(name, 30))
    corpus.delete("new.txt")
    corpus.run()
    assert corpus.differences() == []


@pytest.mark.parametrize("steps", [2, 7, *slow(1, 4)])
def test_an_interrupted_run_is_taken_up_again(tmp_path: Path, steps: int) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(6)
    corpus.write(
        "rows.jsonl", '{"id": "1", "text": "one record"}\n{"id": "2", "text": "two records"}\n{broken\n'
    )
    if steps % 2:
        corpus.run()
        corpus.write("rows.jsonl", '{"id": "2", "text": "two records"}\n{"broken\n')
        corpus.rename("doc001.txt", "renamed.txt")
        corpus.write("doc002.txt", sentence("changed", 30))
        corpus.delete("doc003.txt")
    interrupt(corpus, steps)
    corpus.run()
    assert corpus.differences() == []


@pytest.mark.parametrize(("threshold", "permutations"), [(0.01, 16), (0.999, 16), (1.0, 128)])
def test_every_threshold_that_may_be_configured_works(
    tmp_path: Path, threshold: float, permutations: int
) -> None:
    corpus = Corpus(
        tmp_path, deduplicate={"threshold": threshold, "permutations": permutations, "shingle_words": 1}
    )
    for name, text in (
        ("a", "one two three four"),
        ("b", "two one three four"),
        ("c", "four five six seven"),
    ):
        corpus.write(f"{name}.txt", f"{text} {text}")
    corpus.run()
    assert corpus.count("lineage.duplicates") == (2 if threshold < 0.1 else 1)
    assert corpus.differences() == []

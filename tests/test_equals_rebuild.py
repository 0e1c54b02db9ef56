"""After any history the corpus equals a rebuild from nothing, in every table."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import POISON, WORDS, Corpus, poison, sentence
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from stemma.config import SourceConfig
from stemma.errors import StemmaError

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
SETTINGS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("deduplicate", "threshold", (0.5, 0.7, 0.9, 1.0)),
    ("deduplicate", "keep", ("oldest", "newest", "longest")),
    ("deduplicate", "scope", ("global", "source")),
    ("deduplicate", "shingle_words", (5, 3)),
    ("deduplicate", "permutations", (128, 64)),
    ("chunk", "max_tokens", (20, 30, 200)),
    ("chunk", "overlap", (0, 5)),
    ("chunk", "strategy", ("structure", "recursive", "fixed")),
    ("clean", "languages", ((), ("en",))),
    ("clean", "repair", (True, False)),
    ("embed", "model", ("hash:384", "hash:16")),
]


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw a document: one of few base texts, often with a few words changed, seldom with poison in it."""
    kind = draw(st.sampled_from(["base"] * 10 + ["german", "empty", "blank", "markup"]))
    if kind in ("german", "empty", "blank"):
        return {"german": GERMAN, "empty": "", "blank": " \n\t\n"}[kind]
    words = sentence(draw(st.integers(0, 2)), 60).split()[: draw(st.sampled_from([10, 30, 45, 60]))]
    extra = [*WORDS[:4], *(POISON.values() if draw(st.integers(0, 4)) == 0 else ())]
    for _ in range(draw(st.integers(0, 3))):
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(extra))
    text = " ".join(words)
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
    st.tuples(st.just("move folder"), st.sampled_from(["x", "y", "z"]), st.sampled_from(["x", "y", "z"])),
    st.sampled_from([("set", part, key, value) for part, key, values in SETTINGS for value in values]),
    st.tuples(st.just("run")),
    st.tuples(st.just("run")),
    st.tuples(st.just("interrupted run"), st.integers(1, 9)),
)


class Interrupted(BaseException):
    """What a user's Ctrl-C looks like from inside."""


def apply(corpus: Corpus, operation: tuple[Any, ...]) -> None:
    """Do one thing to the corpus; what makes no sense now is passed over."""
    kind, *arguments = operation
    if kind == "write":
        corpus.write(*arguments)
    elif kind == "delete":
        (corpus.docs / arguments[0]).unlink(missing_ok=True)
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
    elif kind == "set":
        section, key, value = arguments
        corpus.set(**{section: {key: value}})
    elif kind == "run":
        corpus.run(allow_deletes=True)
    elif kind == "interrupted run":
        interrupt(corpus, arguments[0])


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


def lives_through(operations: list[tuple[Any, ...]], *, each_run: bool = False) -> None:
    """Apply a history to a corpus, run, and see that it equals its rebuild."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        poison(patch, *POISON)
        corpus = Corpus(Path(folder), chunk={"max_tokens": 30})
        corpus.threads = 2
        corpus.sources.append(SourceConfig("more", str(corpus.root / "more")))
        corpus.write("../more/anchor.md", ANCHOR)
        corpus.write("anchor.md", f"# Another\n\n{ANCHOR} Here it goes on a little.")
        for operation in operations:
            apply(corpus, operation)
            if each_run and operation[0] == "run":
                assert corpus.differences() == []
        corpus.run(allow_deletes=True)
        assert corpus.differences() == []
        if each_run:
            assert set(corpus.run().computed.values()) == {0}


HISTORY = st.lists(OPERATIONS, min_size=6, max_size=24)
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@seed(1)
@settings(max_examples=5, **QUIET)
@given(HISTORY)
def test_any_history_equals_a_rebuild(operations: list[tuple[Any, ...]]) -> None:
    lives_through(operations)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("STEMMA_TEST_HISTORIES", "400")), **QUIET)
@given(HISTORY)
def test_many_histories_equal_a_rebuild_after_each_run(operations: list[tuple[Any, ...]]) -> None:
    lives_through(operations, each_run=True)


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


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
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

"""Families through the engine: shapes that lead others astray, policies of sources, and versions of documents."""

import json
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import Corpus, sentence, slow

from stemma.config import SourceConfig, SourceDuplicatesConfig
from stemma.resources.engine import DATASETS, Run, deduplicated


class Member(NamedTuple):
    """What became of a document; `family` is the name of the member that names it."""

    kept: bool
    witness: str | None
    similarity: float | None
    method: str | None
    size: int
    family: str


def records(texts: dict[str, str] | Iterable[tuple[str, str]], *, newest_first: bool = False) -> str:
    """Return a JSONL file of records by key, each a day younger (or older) than the one before."""
    rows = list(texts.items() if isinstance(texts, dict) else texts)
    days = range(len(rows), 0, -1) if newest_first else range(len(rows))
    dates = (date(2000, 1, 1) + timedelta(days=day) for day in days)
    return "\n".join(
        json.dumps({"id": key, "text": text, "date": day.isoformat()})
        for (key, text), day in zip(rows, dates, strict=True)
    )


def solve(corpus: Corpus) -> dict[str, Member]:
    """Update up to deduplicated, and return the members of all families by their record or file name."""
    run = corpus.start(allow_deletes=True)
    try:
        for dataset in ("raw", "cleaned", "deduplicated"):
            DATASETS[dataset](run)
    finally:
        run.warehouse.close()
    rows = ask(
        corpus,
        """WITH named AS (SELECT document_id, coalesce(record, path) AS name FROM raw)
        SELECT n.name, d.kept, w.name, d.similarity, d.method, d.cluster_size, f.name
        FROM deduplicated AS d JOIN named AS n USING (document_id)
        JOIN named AS f ON f.document_id = d.cluster_id
        LEFT JOIN named AS w ON w.document_id = d.kept_document_id""",
    )
    return {name: Member(*row) for name, *row in rows}


def ask(corpus: Corpus, query: str) -> list[tuple[Any, ...]]:
    """Ask the private state."""
    with corpus.state() as connection:
        return connection.execute(query).fetchall()


def kept(members: dict[str, Member]) -> set[str]:
    return {name for name, member in members.items() if member.kept}


def windows(count: int, *, step: int = 5, length: int = 60) -> dict[str, str]:
    """Texts of a chain: each is 0.84 like the next one, and 0.70 (a little below) like the one after that."""
    words = sentence("chain", step * count + length).split()
    return {f"{n:03}": " ".join(words[step * n : step * n + length]) for n in range(count)}


def changed(text: str, *positions: int) -> str:
    """Return the text with other words, without digits, at these positions."""
    words = text.split()
    for position in positions:
        words[position] = "other" + "".join("abcdefghij"[int(digit)] for digit in str(position))
    return " ".join(words)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    corpus = Corpus(tmp_path)
    corpus.steady = True
    return corpus


def add_source(corpus: Corpus, name: str, **duplicates: Any) -> None:
    """Add a source beside the documents, whose files are written as `../NAME/…`."""
    own = SourceDuplicatesConfig(**duplicates)
    (corpus.root / name).mkdir()
    corpus.sources.append(SourceConfig(name, str(corpus.root / name), deduplicate=own))


# ---- shapes


def test_a_copy_that_comes_later_joins_the_family_and_leaves_it_again(corpus: Corpus) -> None:
    corpus.write("a.txt", sentence("a", 40))
    assert kept(solve(corpus)) == {"a.txt"}
    corpus.write("b.txt", sentence("a", 40).upper())
    members = solve(corpus)
    assert [member.size for member in members.values()] == [2, 2]
    assert len(kept(members)) == 1
    corpus.delete(*kept(members))
    assert [member.size for member in solve(corpus).values()] == [1]


def test_a_bridge_does_not_remove_what_resembles_nothing_that_is_kept(corpus: Corpus) -> None:
    chain = windows(3)
    corpus.write("rows.jsonl", records(chain))
    members = solve(corpus)
    assert kept(members) == {"000", "002"}
    assert members["001"][:4] == (False, "000", 51 / 61, "near")
    assert {member.size for member in members.values()} == {3}
    # The bridge is the oldest: both ends are like it. Without it they are strangers.
    corpus.write("rows.jsonl", records({key: chain[key] for key in ("001", "000", "002")}))
    assert kept(solve(corpus)) == {"001"}
    corpus.write("rows.jsonl", records({key: chain[key] for key in ("000", "002")}))
    members = solve(corpus)
    assert kept(members) == {"000", "002"}
    assert {member.size for member in members.values()} == {1}


@pytest.mark.slow
def test_a_long_chain_keeps_every_other_link_and_falls_into_two_where_one_is_cut(corpus: Corpus) -> None:
    chain = windows(200)
    corpus.write("rows.jsonl", records(chain))
    members = solve(corpus)
    assert kept(members) == set(list(chain)[::2])
    assert {member.size for member in members.values()} == {200}
    corpus.write("rows.jsonl", records((key, text) for key, text in chain.items() if key != "101"))
    members = solve(corpus)
    assert kept(members) == {*list(chain)[:101:2], *list(chain)[102::2]}
    assert {members[key].size for key in list(chain)[:101]} == {101}
    assert {members[key].size for key in list(chain)[102:]} == {98}


def test_a_star_goes_for_its_hub_or_the_hub_for_a_leaf(corpus: Corpus) -> None:
    hub = sentence("hub", 110)
    leaves = {f"leaf{n}": changed(hub, *range(15 * n + 7, 15 * n + 22, 6)) for n in range(6)}
    corpus.write("rows.jsonl", records({"hub": hub, **leaves}))
    members = solve(corpus)
    assert kept(members) == {"hub"}
    assert {member.witness for member in members.values()} == {"hub", None}
    corpus.write("rows.jsonl", records({**leaves, "hub": hub}))
    members = solve(corpus)
    assert kept(members) == set(leaves)
    assert members["hub"].witness == "leaf0"
    assert {member.size for member in members.values()} == {7}


@pytest.mark.parametrize(
    ("one", "other"),
    [("4711", "4712"), ("१२३", "१२४"), ("一百", "二百"), *slow(("v2", "v3"), ("٤٧١١", "٤٧١٢"))],
)
def test_texts_that_differ_in_numbers_alone(corpus: Corpus, one: str, other: str) -> None:
    words = sentence("form", 70).split()
    forms = [" ".join([*words[:30], number, *words[30:]]) for number in (one, other)]
    corpus.write("rows.jsonl", records({"a": forms[0], "b": forms[1], "c": changed(forms[0], 50)}))
    assert kept(solve(corpus)) == {"a"}
    corpus.set(deduplicate={"numbers": "compare"})
    assert kept(solve(corpus)) == {"a", "b"}
    corpus.set(deduplicate={"numbers": "ignore", "threshold": 0.95})
    assert kept(solve(corpus)) == {"a", "b", "c"}


def test_shared_boilerplate_removes_nothing_and_proposes_no_square_of_pairs(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    measure = deduplicated.measure
    monkeypatch.setattr(
        deduplicated,
        "measure",
        lambda run, layer, pairs: (measured.append(pairs.num_rows), measure(run, layer, pairs))[1],
    )
    header = sentence("header", 60)
    texts = {str(n): f"{header} {sentence(n, 100)}" for n in range(2_000)}
    corpus.write("rows.jsonl", records(texts))
    assert kept(solve(corpus)) == set(texts)
    assert ask(corpus, "SELECT count(*) FROM dedup_pairs") == [(0,)]
    assert 0 < sum(measured) < 64 * 2_000


def test_half_translated_pages_are_not_removed(corpus: Corpus) -> None:
    english, french = sentence("english", 120).split(), sentence("french", 120).split()
    pages = {
        "english": " ".join(english),
        "half": " ".join(english[:60] + french[60:]),
        "most": " ".join(english[:30] + french[30:]),
        "french": " ".join(french),
    }
    corpus.write("rows.jsonl", records(pages))
    members = solve(corpus)
    assert kept(members) == set(pages)
    assert {member.size for member in members.values()} == {1}


def test_documents_of_one_word_and_of_none(corpus: Corpus) -> None:
    texts = {
        **{"word": "word", "Word": "Word.", "words": "word word", "other": "other"},
        **{"dots": "...", "marks": "!!!", "dots again": "...", "empty": "", "blank": " \n "},
    }
    corpus.write("rows.jsonl", records(texts))
    members = solve(corpus)
    assert kept(members) == {"word", "words", "other", "dots", "marks"}
    assert members["Word"][:4] == (False, "word", 1.0, "exact")
    assert members["dots again"][:4] == (False, "dots", 1.0, "exact")


@pytest.mark.parametrize("count", [5_000, *slow(100_000)])
def test_many_identical_documents_are_one_family_and_one_node(corpus: Corpus, count: int) -> None:
    text = sentence("identical", 60)
    texts = {f"{n:06}": text for n in range(count)}
    corpus.write("rows.jsonl", records(texts))
    members = solve(corpus)
    assert kept(members) == {"000000"}
    assert {member.size for member in members.values()} == {count}
    bands = ask(corpus, "SELECT count(*) FROM dedup_bands")
    assert bands[0][0] < 100
    assert ask(corpus, "SELECT count(*) FROM dedup_pairs") == [(0,)]
    # The one that is kept goes, and one comes that is older than all.
    corpus.write("rows.jsonl", records([("new", text), *list(texts.items())[1:]]))
    members = solve(corpus)
    assert kept(members) == {"new"}
    assert {member.size for member in members.values()} == {count}
    assert ask(corpus, "SELECT count(*) FROM dedup_bands") == bands


@pytest.mark.slow
def test_a_document_of_50_mb_beside_small_ones(corpus: Corpus) -> None:
    long = sentence("long", 6_500_000)
    assert len(long) > 50_000_000
    corpus.write("long.txt", long)
    corpus.write("longer.txt", changed(long, *range(0, 6_500_000, 100_000)))
    for name in ("a", "b"):
        corpus.write(f"{name}.txt", sentence("small", 60))
    corpus.write("c.txt", " ".join(long.split(maxsplit=100)[:100]))
    members = solve(corpus)
    assert sorted(member.size for member in members.values()) == [1, 2, 2, 2, 2]
    assert len(kept(members)) == 3
    near = next(member for member in members.values() if member.method == "near")
    assert near.similarity is not None
    assert 0.99 < near.similarity < 1.0


# ---- sources and what is kept


@pytest.mark.slow
def test_scope_source_looks_for_duplicates_in_each_source(corpus: Corpus) -> None:
    add_source(corpus, "more")
    text = sentence("shared", 60)
    near = changed(text, 30)
    corpus.write("rows.jsonl", records({"a": text, "b": near}))
    corpus.write("../more/rows.jsonl", records({"c": text, "d": near}))
    assert len(kept(solve(corpus))) == 1
    corpus.set(deduplicate={"scope": "source"})
    members = solve(corpus)
    assert kept(members) == {"a", "c"}
    assert (members["b"].witness, members["d"].witness) == ("a", "c")
    assert {member.size for member in members.values()} == {2}


@pytest.mark.parametrize("priority", [("more",), ("more", "docs"), ("docs", "more")])
def test_nothing_is_dropped_for_what_a_less_precious_source_has(
    corpus: Corpus, priority: tuple[str, ...]
) -> None:
    add_source(corpus, "more")
    corpus.set(deduplicate={"priority": priority})
    chain = windows(4)
    # The links of docs are older than those of more.
    corpus.write("rows.jsonl", records({"000": chain["000"], "002": chain["002"]}))
    young = {"x": sentence("x", 10), "y": sentence("y", 11), "001": chain["001"], "003": chain["003"]}
    corpus.write("../more/rows.jsonl", records({**young, "copy": chain["000"]}))
    members = solve(corpus)
    first = {"001", "003"} if priority[0] == "more" else {"000", "002"}
    assert kept(members) == {"x", "y", *first}
    assert {member.witness for member in members.values()} <= {None, *first}


def test_a_source_with_no_layers_is_never_dropped_but_testifies(corpus: Corpus) -> None:
    add_source(corpus, "more", layers=("none",))
    text = sentence("kept", 60)
    corpus.write("rows.jsonl", records([("x", "x"), ("y", "y"), ("a", text), ("b", changed(text, 20))]))
    corpus.write("../more/rows.jsonl", records({"c": text, "d": text, "e": changed(text, 40)}))
    members = solve(corpus)
    assert kept(members) == {"x", "y", "c", "d", "e"}
    assert members["a"][:4] == (False, "c", 1.0, "exact")
    assert members["b"][1:4:2] == ("c", "near")


@pytest.mark.slow
def test_a_document_that_comes_to_a_node_meets_edges_that_did_not_count_before(corpus: Corpus) -> None:
    add_source(corpus, "more", thresholds=(("near", 0.8),))
    corpus.set(deduplicate={"threshold": 0.95})
    text = sentence("strict", 60)
    corpus.write("rows.jsonl", records({"a": text, "b": changed(text, 30)}))
    assert kept(solve(corpus)) == {"a", "b"}
    corpus.write("../more/rows.jsonl", records([("x", "x"), ("c", changed(text, 30))]))
    members = solve(corpus)
    assert kept(members) == {"a", "b", "x"}
    assert {members[name].size for name in "abc"} == {3}
    assert corpus_equals_its_rebuild(corpus)


def test_thresholds_are_those_of_the_source_that_would_lose(corpus: Corpus) -> None:
    add_source(corpus, "more", thresholds=(("near", 0.9),))
    text = sentence("strict", 60)
    corpus.write("rows.jsonl", records([("x", "x"), ("b", changed(text, 30))]))
    corpus.write("../more/rows.jsonl", records({"a": text}))
    assert kept(solve(corpus)) == {"x", "a"}
    corpus.write("rows.jsonl", records({"b": changed(text, 30), "x": "x"}))
    corpus.write("../more/rows.jsonl", records([("y", "y"), ("a", text)]))
    assert kept(solve(corpus)) == {"x", "y", "a", "b"}


def test_best_fails_fewer_rules(corpus: Corpus) -> None:
    text = sentence("quality", 80)
    flawed = changed(text, 40).replace("otherea", "lorem ipsum")
    corpus.set(deduplicate={"keep": "best"}, clean={"flag": ("c4",)})
    corpus.write("rows.jsonl", records({"flawed": flawed, "good": text, "good too": changed(text, 41)}))
    members = solve(corpus)
    assert members["flawed"].size == 3
    assert kept(members) == {"good"}
    corpus.set(deduplicate={"keep": "oldest"})
    assert kept(solve(corpus)) == {"flawed"}


@pytest.mark.slow
def test_best_by_an_expression_without_a_value_is_the_worst(corpus: Corpus) -> None:
    text = sentence("quality", 80)
    texts = {"short": text, "long": f"{text} and more", "longest": f"{text} and more of it"}
    corpus.write("rows.jsonl", records(texts))
    expected = {
        "words": "longest",
        "-words": "short",
        "CASE WHEN words < 82 THEN NULL ELSE -words END": "long",
        "NULL::DOUBLE": "short",
        "0": "short",
    }
    for quality, best in expected.items():
        corpus.set(deduplicate={"keep": "best", "quality": quality})
        assert kept(solve(corpus)) == {best}, quality
    corpus.set(deduplicate={"keep": "longest", "quality": None})
    assert kept(solve(corpus)) == {"longest"}
    corpus.set(deduplicate={"keep": "newest"})
    assert kept(solve(corpus)) == {"longest"}


# ---- versions


def versions(corpus: Corpus) -> dict[str, list[tuple[int, bool, bool]]]:
    """Return the versions of each document's texts: number, whether it is open, whether it was followed at once."""
    rows = ask(
        corpus,
        """SELECT coalesce(r.path, 'gone'), v.version, v.until IS NULL,
            coalesce(v.until = lead(v.since) OVER of_document, false), v.since_run, v.until_run
        FROM versions AS v LEFT JOIN raw AS r USING (document_id)
        WINDOW of_document AS (PARTITION BY document_id ORDER BY version) ORDER BY ALL""",
    )
    for _name, _version, is_open, _followed, since_run, until_run in rows:
        assert since_run is not None
        assert (until_run is None) == is_open
    found: dict[str, list[tuple[int, bool, bool]]] = {}
    for name, version, is_open, followed, _since, _until in rows:
        found.setdefault(name, []).append((version, is_open, followed))
    return found


@pytest.mark.slow
def test_versions_of_documents_are_remembered(corpus: Corpus) -> None:
    corpus.write("a.txt", sentence("a", 40))
    corpus.write("b.txt", sentence("b", 40))
    solve(corpus)
    first = {"a.txt": [(1, True, False)], "b.txt": [(1, True, False)]}
    assert versions(corpus) == first
    before = ask(corpus, "FROM versions ORDER BY ALL")
    solve(corpus)
    corpus.set(deduplicate={"threshold": 0.8})
    solve(corpus)
    assert ask(corpus, "FROM versions ORDER BY ALL") == before
    corpus.write("a.txt", changed(sentence("a", 40), 20))
    solve(corpus)
    assert versions(corpus) == first | {"a.txt": [(1, False, True), (2, True, False)]}
    corpus.delete("b.txt")
    solve(corpus)
    assert versions(corpus)["gone"] == [(1, False, False)]
    # Back to the old text: another version, and not the first one again.
    corpus.write("a.txt", sentence("a", 40))
    corpus.write("b.txt", sentence("b", 40))
    solve(corpus)
    assert versions(corpus) == {
        "a.txt": [(1, False, True), (2, False, True), (3, True, False)],
        "b.txt": [(1, False, False), (2, True, False)],
    }


# ---- the index


def corpus_equals_its_rebuild(corpus: Corpus) -> bool:
    corpus.run(allow_deletes=True)
    return corpus.differences() == []


@pytest.mark.slow
def test_an_index_that_was_emptied_by_a_run_that_failed_forgets_no_family(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = sentence("a", 60)
    for name, words in {"a": text, "b": changed(text, 30), "c": sentence("c", 40)}.items():
        corpus.write(f"{name}.txt", words)
    solve(corpus)
    with monkeypatch.context() as patch:
        patch.setattr(deduplicated, "MEASURED_AT_ONCE", 0)
        patch.setattr(deduplicated, "measure", _fail)
        corpus.set(deduplicate={"threshold": 0.8})
        with pytest.raises(RuntimeError):
            solve(corpus)
    # Asked as before, and without what the index of the failed run did not know to be in a family.
    corpus.set(deduplicate={"threshold": 0.7})
    corpus.delete("c.txt")
    solve(corpus)
    assert ask(corpus, "SELECT count(*) FROM deduplicated") == [(2,)]


@pytest.mark.slow
def test_a_run_does_not_wait_for_texts_that_another_run_has_changed_meanwhile(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = sentence("a", 60)
    corpus.write("a.txt", text)
    corpus.write("b.txt", changed(text, 30))
    measure, rounds = deduplicated._measure, iter(range(2))

    def measure_meanwhile(run: Run, todo: Any) -> None:
        if next(rounds) == 0:
            with run.warehouse.session() as connection:
                connection.execute("UPDATE state.cleaned SET text_hash = gen_random_uuid()")
            todo = []
        measure(run, todo)

    monkeypatch.setattr(deduplicated, "MEASURED_AT_ONCE", 0)
    monkeypatch.setattr(deduplicated, "_measure", measure_meanwhile)
    assert solve(corpus) == {}


def _fail(*_arguments: Any, **_named: Any) -> None:
    raise RuntimeError

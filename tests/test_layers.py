"""The layers of duplicates through the engine: each finds what it is for, and equals a rebuild whatever happens."""

from pathlib import Path

import pytest
from harness import Corpus, sentence, slow

from stemma.resources.engine import deduplicated

ALL = ("exact", "near", "contained", "edit", "semantic")


def methods(corpus: Corpus) -> dict[str, tuple[str, float, str]]:
    """By the name of each document removed: the method, the similarity, the name of the witness."""
    found = corpus.query(
        """SELECT r.uri, method, similarity, k.uri FROM lineage.duplicates JOIN corpus.raw AS r USING (document_id)
        JOIN corpus.raw AS k ON k.document_id = kept_document_id"""
    )
    return {Path(uri).name: (method, score, Path(kept).name) for uri, method, score, kept in found}


def fill(corpus: Corpus) -> None:
    """Write a document for each layer, dated in order: original, copy, edited copy, excerpt, a short text, its typo."""
    words = sentence("original", 400).split()
    title = "The committee will meet on the second of November in the town hall"
    documents = {
        "original": " ".join(words),
        "copy": " ".join(words).upper(),
        "edited": " ".join([*words[:200], "other", *words[201:]]),
        "excerpt": " ".join(words[100:200]),
        "title": title,
        "typo": title.replace("mm", "m").replace("hall", "hal"),
        "unlike": sentence("unlike", 300),
    }
    for day, (name, text) in enumerate(documents.items(), 1):
        corpus.write(f"2024-05-{day:02}-{name}.txt", text)


def test_each_layer_finds_what_it_is_for(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"layers": ALL[:4]})
    fill(corpus)
    corpus.run()
    found = {
        name[11:-4]: (method, score, kept[11:-4]) for name, (method, score, kept) in methods(corpus).items()
    }
    assert {name: (method, kept) for name, (method, _score, kept) in found.items()} == {
        "copy": ("exact", "original"),
        "edited": ("near", "original"),
        "excerpt": ("contained", "original"),
        "typo": ("edit", "title"),
    }
    assert found["excerpt"][1] == 1.0
    assert found["edited"][1] == pytest.approx(391 / 401)
    assert corpus.differences() == []


def test_semantic_duplicates_are_found_whatever_the_order_of_their_words(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"layers": ("semantic",)})
    corpus.steady = True
    words = sentence("bag", 120).split()
    corpus.write("a.txt", " ".join(words))
    corpus.write("b.txt", " ".join(words[60:] + words[:60]))
    corpus.write("c.txt", sentence("other", 120))
    corpus.run()
    ((method, similarity, _kept),) = methods(corpus).values()
    assert method == "semantic"
    assert similarity > 0.95
    corpus.delete("a.txt")
    corpus.run()
    assert methods(corpus) == {}
    assert corpus.differences() == []


@pytest.mark.parametrize("category", ["group", *slow("source", "language")])
def test_semantic_duplicates_of_other_categories_stay(tmp_path: Path, category: str) -> None:
    corpus = Corpus(tmp_path)
    words = sentence("bag", 120).split()
    corpus.write("a/a.txt", " ".join(words))
    corpus.write("b/b.txt", " ".join(words[60:] + words[:60]))
    corpus.split_sources("a", "b", labels="group")
    corpus.set(deduplicate={"layers": ("exact", "semantic")}, semantic={"category": category})
    corpus.run()
    assert len(methods(corpus)) == (1 if category == "language" else 0)
    corpus.set(semantic={"category": None})
    corpus.run()
    assert len(methods(corpus)) == 1
    assert corpus.differences() == []


@pytest.mark.slow
def test_layers_come_and_go_and_every_state_equals_a_rebuild(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"layers": ALL[:2]})
    corpus.steady = True
    fill(corpus)
    corpus.run()
    changes = [
        lambda: corpus.set(deduplicate={"layers": ALL}),
        lambda: corpus.delete("2024-05-01-original.txt"),
        lambda: corpus.write("longer.txt", sentence("original", 400) + " " + sentence("more", 300)),
        lambda: corpus.set(contained={"threshold": 0.6}, edit={"threshold": 0.99}),
        lambda: corpus.write(
            "title.txt", "The comittee will meet on the second of November in the town hall"
        ),
        lambda: corpus.set(deduplicate={"layers": ("contained",)}),
        lambda: corpus.delete("longer.txt"),
        lambda: corpus.set(deduplicate={"layers": ("exact", "edit"), "numbers": "compare"}),
    ]
    for change in changes:
        change()
        corpus.update("deduplicated")
        assert corpus.family_differences() == {}
    corpus.run()
    assert corpus.differences() == []


@pytest.mark.slow
def test_numbers_tell_forms_apart(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"layers": ("exact", "near", "edit")})
    form = sentence("form", 200)
    for number in range(3):
        corpus.write(f"form{number}.txt", f"{form} Invoice {100 + number} of March 2024.")
        corpus.write(f"note{number}.txt", f"Your ticket {number} is ready for collection at the counter")
    corpus.run()
    assert {method for method, _, _ in methods(corpus).values()} == {"near", "edit"}
    corpus.set(deduplicate={"numbers": "compare"})
    corpus.run()
    assert methods(corpus) == {}
    assert corpus.differences() == []


def shared_words(seed: str, count: int) -> str:
    return sentence(f"passage-{seed}", count)


def kept_texts(corpus: Corpus) -> dict[str, str]:
    found = corpus.query("SELECT uri, text FROM corpus.deduplicated JOIN corpus.raw USING (document_id)")
    return {Path(uri).name: text for uri, text in found}


def test_passages_are_reported_with_their_places(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"layers": ("exact", "near", "passage")})
    passage = shared_words("one", 80)
    for day in (1, 2, 3):
        corpus.write(f"2024-01-0{day}-x.txt", f"{sentence(day, 90)}\n\n{passage}\n\n{sentence(-day, 70)}")
    corpus.run()
    rows = corpus.query(
        """SELECT l.text[p.char_start + 1:p.char_end], f.text[p.source_char_start + 1:p.source_char_end], p.words,
            f.document_date < l.document_date
        FROM lineage.passages AS p JOIN corpus.cleaned AS l USING (document_id)
        JOIN corpus.cleaned AS f ON f.document_id = p.source_document_id"""
    )
    assert rows == [(passage, passage, 80, True)] * 3, "the third document shares it with both earlier ones"
    assert corpus.count("lineage.cuts") == 0
    assert corpus.differences() == []


def test_passages_are_cut_from_the_later_document_and_from_its_chunks(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"layers": ("exact", "near", "passage")}, passage={"cut": True})
    corpus.set(chunk={"max_tokens": 60})
    passage = shared_words("one", 80)
    bodies = {day: (sentence(day, 90), sentence(-day, 70)) for day in (1, 2)}
    for day, (head, tail) in bodies.items():
        corpus.write(f"2024-01-0{day}-x.txt", f"{head}\n\n{passage}.\n\n{tail}")
    corpus.run()
    texts = kept_texts(corpus)
    assert passage in texts["2024-01-01-x.txt"]
    assert passage not in texts["2024-01-02-x.txt"]
    assert texts["2024-01-02-x.txt"].split() == [word for part in bodies[2] for word in part.split()]
    chunks = corpus.query(
        """SELECT c.text, d.text[c.char_start + 1:c.char_end], length(c.text) FROM corpus.chunked AS c
        JOIN corpus.cleaned AS d USING (document_id)"""
    )
    assert all(chunk == span for chunk, span, _ in chunks)
    later = corpus.query(
        """SELECT string_agg(c.text, ' ' ORDER BY ordinal) FROM corpus.chunked AS c
        JOIN corpus.raw AS r USING (document_id) WHERE r.uri LIKE '%01-02-x%'"""
    )[0][0]
    assert later.split() == texts["2024-01-02-x.txt"].split()
    assert corpus.differences() == []
    corpus.delete("2024-01-01-x.txt")
    corpus.run()
    assert passage in kept_texts(corpus)["2024-01-02-x.txt"]
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_document_of_passages_alone_stays_whole(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"layers": ("exact", "passage")}, passage={"cut": True})
    one, two = shared_words("one", 80), shared_words("two", 80)
    corpus.write("2024-01-01-a.txt", f"{one} {sentence('a', 60)}")
    corpus.write("2024-01-02-b.txt", f"{two} {sentence('b', 60)}")
    corpus.write("2024-01-03-c.txt", f"{one}\n\n{two}")
    corpus.run()
    assert kept_texts(corpus)["2024-01-03-c.txt"] == f"{one}\n\n{two}"
    assert corpus.count("lineage.passages") == 2
    assert corpus.differences() == []


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["oldest", "newest", "longest", "best"])
def test_passages_equal_a_rebuild_as_documents_come_and_go(tmp_path: Path, keep: str) -> None:
    corpus = Corpus(
        tmp_path, deduplicate={"layers": ("exact", "near", "passage"), "keep": keep}, passage={"cut": True}
    )
    corpus.steady = True
    passages = [shared_words(str(number), 60) for number in range(3)]

    def write(day: int, *parts: int) -> None:
        body = "\n\n".join(passages[part] for part in parts)
        corpus.write(
            f"2024-02-{day:02}-x.txt", f"{sentence(day, 40 + day)}\n\n{body}\n\n{sentence(-day, 50)}"
        )

    for day, parts in enumerate([(0,), (0, 1), (1,), (1, 2), (2, 0), ()], 1):
        write(day, *parts)
    corpus.run()
    assert corpus.differences() == []
    assert corpus.count("lineage.cuts") > 2
    changes = [
        lambda: corpus.delete("2024-02-01-x.txt"),
        lambda: write(3, 0, 2),
        lambda: corpus.rename("2024-02-05-x.txt", "2023-02-05-x.txt"),
        lambda: corpus.set(passage={"min_words": 70}),
        lambda: corpus.set(passage={"min_words": 50}, deduplicate={"keep": "newest"}),
        lambda: corpus.set(deduplicate={"layers": ("exact",)}),
    ]
    for change in changes:
        change()
        corpus.update("deduplicated")
        assert corpus.family_differences() == {}
    corpus.run()
    assert corpus.differences() == []
    assert corpus.count("lineage.passages") == corpus.count("lineage.cuts") == 0


@pytest.mark.slow
def test_passages_are_found_in_documents_that_were_there_before(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.steady = True
    passage = shared_words("one", 40)
    for day in (1, 2):
        corpus.write(f"2024-03-0{day}.txt", f"{sentence(day, 60)}\n\n{passage}\n\n{sentence(-day, 60)}")
    corpus.run()
    corpus.set(deduplicate={"layers": ("exact", "near", "passage")})
    for min_words, found in ((50, 0), (30, 1), (20, 1)):
        corpus.set(passage={"min_words": min_words})
        corpus.run()
        assert corpus.count("lineage.passages") == found
    assert corpus.differences() == []


@pytest.mark.slow
def test_many_pairs_of_passages_are_compared_outside_the_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deduplicated, "MEASURED_AT_ONCE", 0)
    corpus = Corpus(tmp_path, deduplicate={"layers": ("exact", "near", "passage")}, passage={"cut": True})
    passage = shared_words("one", 60)
    for day in range(1, 7):
        corpus.write(f"2024-03-{day:02}.txt", f"{passage} {sentence(day // 2, 80)} {sentence(day, 30)}")
    corpus.run()
    corpus.write("2024-03-09.txt", f"{sentence(9, 80)} {passage}")
    corpus.run()
    assert corpus.count("lineage.passages") > 0
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_run_that_another_configuration_overtakes_plans_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus(tmp_path, deduplicate={"threshold": 0.7})
    fill(corpus)
    corpus.run()
    corpus.write("2024-06-01-new.txt", sentence("new", 200))
    sign = deduplicated._sign
    overtaken = []

    def sign_and_be_overtaken(run, *more):
        outcomes = sign(run, *more)
        if not overtaken:
            overtaken.append(run)
            corpus.set(deduplicate={"threshold": 0.9})
            corpus.run()
            corpus.set(deduplicate={"threshold": 0.7})
        return outcomes

    monkeypatch.setattr(deduplicated, "_sign", sign_and_be_overtaken)
    # Few texts are signed while others wait for the lock: nobody can overtake then, the run in `_sign` least of all.
    monkeypatch.setattr(deduplicated, "SIGNED_AT_ONCE", -1)
    corpus.run()
    assert overtaken
    assert corpus.differences() == []
    assert corpus.family_differences() == {}

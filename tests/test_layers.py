"""The layers of duplicates through the engine: each finds what it is for, and equals a rebuild whatever happens."""

from pathlib import Path

import pytest
from harness import Corpus, sentence

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


@pytest.mark.parametrize("category", ["source", "language", "group"])
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


def test_layers_come_and_go_and_every_state_equals_a_rebuild(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"layers": ALL[:2]})
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
        corpus.run()
        assert corpus.differences() == []


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

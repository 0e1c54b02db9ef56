"""Personal data and evaluation items: found, replaced or flagged, and on record."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import NOTHING, Corpus, sentence

from stemma.config import DecontaminateConfig
from stemma.errors import StemmaError, UsageError
from stemma.resources import workers

KEY = "a key of more than sixteen bytes"
QUESTION = "Which of the following rivers carries more water to the sea than all of the others taken together"


@pytest.fixture(autouse=True)
def fresh_workers():
    """Let no process that another test has started, and that knows no key, take part."""
    for shared in workers._shared.values():
        shared.close()


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus(tmp_path)
    corpus.write("plain.txt", sentence("plain", 60))
    return corpus


# -- personal data -----------------------------------------------------------------------------------------------


def test_personal_data_are_replaced_and_stay_linkable(corpus, monkeypatch):
    monkeypatch.setenv("STEMMA_PII_KEY", KEY)
    corpus.write(
        "one.txt", "First line of it.\n\n\n\nWrite to ann.lee@rivermail.net or to bob@hillmail.net today.\n"
    )
    corpus.write("two.txt", "The address ANN.LEE@RiverMail.net stands here as well, in other letters.")
    corpus.set(clean={"pii": ("email",)})
    corpus.run()
    texts = dict(
        corpus.query(
            "SELECT parse_filename(uri), c.text FROM corpus.cleaned AS c JOIN corpus.raw USING (document_id)"
        )
    )
    assert "@" not in "".join(texts.values())
    spans = corpus.query(
        """SELECT parse_filename(uri), span.kind, text[span.char_start + 1:span.char_end]
        FROM (SELECT document_id, text, unnest(pii) AS span FROM corpus.cleaned)
        JOIN corpus.raw USING (document_id) ORDER BY uri, span.char_start"""
    )
    (_, _, ann), (_, _, bob), (_, _, again) = spans
    assert [span[:2] for span in spans] == [("one.txt", "email")] * 2 + [("two.txt", "email")]
    assert ann == again != bob
    assert texts["one.txt"] == f"First line of it.\n\nWrite to {ann} or to {bob} today."
    assert corpus.run().computed == NOTHING
    assert corpus.differences() == []


def test_places_are_exact_around_what_was_replaced(corpus, monkeypatch):
    monkeypatch.setenv("STEMMA_PII_KEY", KEY)
    corpus.write("one.txt", "Wörter.\r\n\r\n\r\nWrite to ann.lee@rivermail.net now.  \r\nThe end of it.")
    corpus.set(clean={"pii": ("email",)}, chunk={"max_tokens": 1})
    corpus.run()
    file = (corpus.docs / "one.txt").read_bytes()
    rows = corpus.query(
        """SELECT c.text, source_byte_start, source_byte_end FROM lineage.trace AS t
        JOIN corpus.chunked AS c USING (chunk_id) JOIN corpus.cleaned AS d ON d.document_id = c.document_id
        WHERE t.uri LIKE '%one.txt' AND (c.char_end <= d.pii[1].char_start OR c.char_start >= d.pii[1].char_end)
        ORDER BY c.ordinal"""
    )
    for text, start, end in rows:
        assert file[start:end].decode() == text
    assert {"W", "end"} & {text for text, _, _ in rows}


def test_a_chunk_that_ends_in_a_placeholder_ends_where_its_value_does(corpus, monkeypatch):
    monkeypatch.setenv("STEMMA_PII_KEY", KEY)
    first = "Wörter. Write to a.very.long.name.of.somebody@rivermail.net"
    corpus.write(
        "one.txt", f"{first}\n\nThe second paragraph names x@yz.com\n\nThird ends: ann.lee@rivermail.net"
    )
    corpus.set(clean={"pii": ("email",)}, chunk={"strategy": "recursive", "max_tokens": 16})
    corpus.run()
    file = (corpus.docs / "one.txt").read_bytes()
    pieces = [
        file[start:end].decode()
        for start, end in corpus.query(
            """SELECT source_byte_start, source_byte_end FROM lineage.trace
            WHERE uri LIKE '%one.txt' ORDER BY char_start"""
        )
    ]
    assert [piece.split()[-1] for piece in pieces] == [
        "a.very.long.name.of.somebody@rivermail.net",
        "x@yz.com",
        "ann.lee@rivermail.net",
    ]


def test_titles_and_authors_hold_no_personal_data_either(corpus, monkeypatch):
    monkeypatch.setenv("STEMMA_PII_KEY", KEY)
    record = {
        "id": "1",
        "title": "to ann.lee@rivermail.net",
        "author": "ann.lee@rivermail.net",
        "text": "A text.",
    }
    corpus.write("rows.jsonl", json.dumps(record) + "\n")
    corpus.write(
        "front.md", "---\ntitle: Mail ann.lee@rivermail.net now\nauthor: Ann\n---\nSome words in it.\n"
    )
    page = "<title>Hi ann.lee@rivermail.net</title><meta name='author' content='ann.lee@rivermail.net'>"
    corpus.write("page.html", f"<html><head>{page}</head><body><p>Words of a page.</p></body></html>")
    corpus.set(clean={"pii": ("email",)})
    corpus.run()
    named = corpus.query("SELECT title, author FROM corpus.cleaned WHERE title IS NOT NULL ORDER BY title")
    assert len(named) == 3
    assert "@" not in str(named)
    assert "Ann" in str(named)
    assert str(named).count("EMAIL") == 5
    assert corpus.differences() == []


def test_another_key_is_another_recipe(corpus, monkeypatch):
    monkeypatch.setenv("STEMMA_PII_KEY", KEY)
    corpus.write("one.txt", "Write to ann.lee@rivermail.net today, and to nobody else.")
    corpus.set(clean={"pii": ("email",)})
    corpus.run()
    before = corpus.query("SELECT text FROM corpus.cleaned ORDER BY ALL")
    monkeypatch.setenv("STEMMA_PII_KEY", KEY + "!")
    assert corpus.run().computed["cleaned"] == 2
    assert corpus.query("SELECT text FROM corpus.cleaned ORDER BY ALL") != before
    explained = json.dumps(corpus.query("SELECT explained FROM lineage.recipes"))
    assert KEY not in explained


@pytest.mark.parametrize("key", ["", "too short"])
def test_without_a_good_key_nothing_runs(corpus, monkeypatch, key):
    monkeypatch.setenv("STEMMA_PII_KEY", key)
    corpus.set(clean={"pii": ("email",)})
    with pytest.raises(UsageError, match="STEMMA_PII_KEY"):
        corpus.run()


# -- decontamination -----------------------------------------------------------------------------------------------


@pytest.fixture
def contaminated(corpus):
    lines = [
        {"id": "q1", "question": QUESTION, "choices": ["Amazon", "Congo"]},
        {"id": "q2", "question": sentence("never asked", 20)},
    ]
    (corpus.root / "quiz.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus.write("leak.txt", f"{sentence('before', 30)}. {QUESTION.upper()}? {sentence('after', 30)}.")
    corpus.set(clean={"decontaminate": DecontaminateConfig(sets=("quiz.jsonl",))})
    return corpus


def test_an_evaluation_item_is_flagged_with_its_evidence(contaminated):
    contaminated.run()
    ((name, evaluation_set, item, ngram, text),) = contaminated.query(
        """SELECT parse_filename(k.uri), evaluation_set, item, ngram, c.text[char_start + 1:char_end]
        FROM lineage.contamination AS k JOIN corpus.cleaned AS c USING (document_id)"""
    )
    assert (name, evaluation_set, item) == ("leak.txt", "quiz", "q1")
    assert ngram == " ".join(QUESTION.lower().split()[:13])
    assert text.lower().split() == ngram.split()
    assert contaminated.value("SELECT count(*) FROM lineage.flags WHERE rule = 'contamination'") == 1
    assert contaminated.value("SELECT count(*) FROM lineage.decisions") == 0
    assert contaminated.run().computed == NOTHING
    assert contaminated.differences() == []


def test_a_contaminated_document_is_dropped_on_request_and_the_evidence_stays(contaminated):
    contaminated.run()
    contaminated.set(
        clean={"decontaminate": DecontaminateConfig(sets=("quiz.jsonl",), action="drop", min_share=0.2)}
    )
    assert contaminated.run().computed == NOTHING
    assert contaminated.query("SELECT rule, threshold FROM lineage.decisions") == [("contamination", 0.2)]
    assert contaminated.value("SELECT count(*) FROM lineage.contamination") == 1
    assert contaminated.query(
        "SELECT evaluation_set, items, items_found, documents, documents_dropped FROM lineage.contamination_report"
    ) == [("quiz", 2, 1, 1, 1)]
    assert contaminated.differences() == []


def test_another_evaluation_set_cleans_nothing_again(contaminated):
    contaminated.run()
    cleaned = contaminated.query("SELECT document_id, text_hash FROM corpus.cleaned ORDER BY ALL")
    (contaminated.root / "quiz.jsonl").write_text(json.dumps({"question": sentence("plain", 60)}))
    result = contaminated.run()
    assert result.counts["chunked"].rows_computed == 0
    assert contaminated.query("SELECT parse_filename(uri), item FROM lineage.contamination") == [
        ("plain.txt", "0")
    ]
    assert contaminated.query("SELECT document_id, text_hash FROM corpus.cleaned ORDER BY ALL") == cleaned
    assert contaminated.differences() == []


def test_sets_in_other_formats(contaminated):
    root = contaminated.root
    pq.write_table(pa.table({"id": [7], "question": [QUESTION]}), root / "a.parquet")
    (root / "b.csv").write_text(f'id,question\n8,"{QUESTION}"\n')
    (root / "c.txt").write_text(f"too short\n{QUESTION}\n")
    (root / "d.json").write_text(json.dumps([{"q": {"text": [QUESTION]}}]))
    sets = ("a.parquet", "b.csv", "c.txt", "d.json")
    contaminated.set(clean={"decontaminate": DecontaminateConfig(sets=sets)})
    contaminated.run()
    assert contaminated.query("SELECT evaluation_set, item FROM lineage.contamination ORDER BY ALL") == [
        ("a", "7"),
        ("b", "8"),
        ("c", "1"),
        ("d", "0"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.jsonl", None, "absent.jsonl.*No such file"),
        ("broken.jsonl", '{"question": "x y z"}\n{broken', "broken.jsonl.*line 2"),
        ("empty.jsonl", "\n", "empty.jsonl.*no item"),
        ("broken.parquet", "PAR1", "broken.parquet"),
        ("broken.json", "{}", "array of objects"),
    ],
)
def test_a_set_that_cannot_be_read_stops_the_run(contaminated, name, content, words):
    if content is not None:
        (contaminated.root / name).write_text(content)
    contaminated.set(clean={"decontaminate": DecontaminateConfig(sets=(name,))})
    with pytest.raises(StemmaError, match=words):
        contaminated.run()

"""Near-duplicates that the engine finds against all that there are, counted another way: precision 1, recall 0.99."""

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from harness import Corpus, slow
from scipy.sparse import csr_array
from test_deduplication import words_in_plain_python

from stemma.config import SourceConfig
from stemma.resources.engine.rowwise import segments_of

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "corpus"
SHINGLE_WORDS = 5
THRESHOLDS = (0.7, 0.8)
# Documents that are compared with all others at a time.
COMPARED = 2_000

Pairs = dict[tuple[UUID, UUID], float]
Tokeniser = Callable[[str], list[str]]
Record = Callable[[str, object], None]


# ---- the oracle


def all_pairs(texts: Sequence[np.ndarray], least: float) -> dict[tuple[int, int], float]:
    """Return every pair of texts (the numbers of their words) whose shingles have a Jaccard similarity of `least`.

    Each shingle is a column, each text a row, and the product with the transpose counts what two texts share.
    """
    rows, columns = distinct_shingles(texts)
    sizes = np.bincount(rows, minlength=len(texts))
    starts = np.concatenate(([0], np.cumsum(sizes)))
    matrix = csr_array(
        (np.ones(len(columns), np.int32), columns, starts), shape=(len(texts), columns.max() + 1)
    )
    transposed = matrix.T.tocsr()
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(texts), COMPARED):
        shared = (matrix[start : start + COMPARED] @ transposed).tocoo()
        a, b = shared.row + start, shared.col
        similarity = shared.data / (sizes[a] + sizes[b] - shared.data)
        chosen = (similarity >= least) & (a < b)
        pairs = zip(a[chosen].tolist(), b[chosen].tolist(), strict=True)
        found.update(zip(pairs, similarity[chosen].tolist(), strict=True))
    return found


def distinct_shingles(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the shingles of texts as (text, number of the shingle), sorted, each once.

    A shingle is numbered without hashing: two words are, then the two and the third, and so on. What is shorter
    than a shingle is one, filled up with a word (0) that no text has.
    """
    filled = [
        np.pad(text, (0, max(SHINGLE_WORDS - len(text), 0))) if len(text) else text.astype(np.int64)
        for text in texts
    ]
    words = np.concatenate(filled).astype(np.int64)
    lengths = np.array([len(text) for text in filled])
    owners = np.repeat(np.arange(len(texts)), lengths)
    numbers = words
    for more in range(1, SHINGLE_WORDS):
        pairs = numbers[:-1] * (words.max() + 1) + words[more:]
        numbers = np.unique(pairs, return_inverse=True)[1]
    within = owners[: len(numbers)] == owners[SHINGLE_WORDS - 1 :]
    width = numbers.max() + 1
    codes = np.unique(owners[: len(numbers)][within] * width + numbers[within])
    return codes // width, codes % width


# ---- the engine


def nodes(corpus: Corpus) -> dict[UUID, str]:
    """Return a text, as cleaned, of each node of the index."""
    run = corpus.start()
    try:
        run.warehouse.connection.execute("SET memory_limit = '4GB'")
        memo = segments_of(run, run.setup.clean)
        with run.warehouse.session() as connection:
            bodies = memo.find_bodies(connection, "state.cleaned", "input_hash, text")
            rows = connection.execute(
                f"""SELECT d.node, any_value(b.text) FROM {bodies} AS b
                JOIN state.cleaned AS c USING (input_hash) JOIN state.dedup_documents AS d USING (document_id)
                GROUP BY d.node"""
            ).fetchall()
    finally:
        run.warehouse.close()
    return dict(rows)


def edges(corpus: Corpus, threshold: float) -> Pairs:
    """Return the verified pairs of nodes."""
    with corpus.state() as connection:
        rows = connection.execute(
            "SELECT least(a, b), greatest(a, b), score FROM dedup_pairs WHERE score >= ?", [threshold]
        ).fetchall()
    assert len({row[:2] for row in rows}) == len(rows)
    return {(a, b): score for a, b, score in rows}


def true_pairs(texts: dict[UUID, str], tokenise: Tokeniser, least: float) -> Pairs:
    """Return all pairs of the texts by name whose similarity is `least` or more."""
    known: dict[str, int] = {}
    numbered = [
        np.array([known.setdefault(word, len(known) + 1) for word in tokenise(text)], np.int32)
        for text in texts.values()
    ]
    forms = [each.tobytes() for each in numbered if len(each)]
    assert len(set(forms)) == len(forms), "texts of the same words are two nodes"
    names = list(texts)
    return {
        (min(names[a], names[b]), max(names[a], names[b])): similarity
        for (a, b), similarity in all_pairs(numbered, least).items()
    }


def check_pairs(corpus: Corpus, tokenise: Tokeniser, record: Record, *, least: int) -> None:
    """See that the engine's pairs are those of the oracle, and its families what hangs together by them."""
    truth: Pairs | None = None
    for threshold in THRESHOLDS:
        corpus.set(deduplicate={"threshold": threshold})
        corpus.update("deduplicated")
        truth = truth or true_pairs(nodes(corpus), tokenise, min(THRESHOLDS))
        expected = {pair: similarity for pair, similarity in truth.items() if similarity >= threshold}
        found = edges(corpus, threshold)
        record(f"pairs at {threshold}", len(expected))
        record(f"recall at {threshold}", len(found) / len(expected))
        assert len(expected) >= least
        assert found.items() <= expected.items()
        assert len(found) >= 0.99 * len(expected)
        check_families(corpus, found, expected)


def check_families(corpus: Corpus, found: Pairs, expected: Pairs) -> None:
    """See that families are the components of the pairs found, and hardly ever others than those of all pairs.

    Who is removed is a true duplicate of one that is kept.
    """
    with corpus.state() as connection:
        rows = connection.execute(
            """SELECT d.document_id, d.cluster_id, n.node, w.node, v.kept, d.similarity
            FROM deduplicated AS d JOIN dedup_documents AS n USING (document_id)
            LEFT JOIN dedup_documents AS w ON w.document_id = d.kept_document_id
            LEFT JOIN deduplicated AS v ON v.document_id = d.kept_document_id"""
        ).fetchall()
    documents = [(document, node) for document, _cluster, node, *_more in rows]
    families = [cluster for _document, cluster, *_more in rows]
    assert families == families_of(documents, found)
    true_families = families_of(documents, expected)
    same = sum(one == other for one, other in zip(families, true_families, strict=True))
    assert same >= 0.999 * len(rows)
    for _document, _cluster, node, witness, witness_is_kept, similarity in rows:
        if witness is not None:
            assert witness_is_kept
            pair = (min(node, witness), max(node, witness))
            assert similarity == (1.0 if node == witness else expected[pair])


def families_of(documents: Sequence[tuple[UUID, UUID]], pairs: Pairs) -> list[UUID]:
    """Return of each document (with its node) the smallest in its connected component."""
    component = components({node for _document, node in documents}, pairs)
    smallest: dict[UUID, UUID] = {}
    for document, node in documents:
        smallest[component[node]] = min(document, smallest.get(component[node], document))
    return [smallest[component[node]] for _document, node in documents]


def components(names: Iterable[UUID], pairs: Iterable[tuple[UUID, UUID]]) -> dict[UUID, UUID]:
    """Return the name of the connected component of each name."""
    parent = {name: name for name in names}

    def root(name: UUID) -> UUID:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for a, b in pairs:
        parent[root(a)] = root(b)
    return {name: root(name) for name in parent}


def test_the_sample(tmp_path: Path, record_property: Record) -> None:
    corpus = Corpus(tmp_path)
    corpus.sources = [SourceConfig("sample", str(SAMPLE))]
    check_pairs(corpus, words_in_plain_python, record_property, least=100)


@pytest.mark.parametrize("step", [4, *slow(1)])
def test_licences(shared: Path, tmp_path: Path, record_property: Record, step: int) -> None:
    corpus = Corpus(tmp_path)
    licences(shared, corpus, step)
    check_pairs(corpus, words_in_plain_python, record_property, least=3_000)


def licences(shared: Path, corpus: Corpus, step: int) -> dict[str, str]:
    """Make every `step`th licence of b4 the corpus; returns each one's curated cluster by its key."""
    path = shared / "data" / "b4_licence_clusters" / "docs.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][::step]
    records = [json.dumps({"id": row["id"], "text": row["text"]}) for row in rows]
    corpus.write("licences.jsonl", "\n".join(records))
    return {row["id"]: row["cluster"] for row in rows}


# Curated clusters are broader than near-duplicates (excerpts), and some licences differ in a sentence only.
@pytest.mark.parametrize(
    ("step", "precision", "recall"), [(4, (0.81, 0.85), (0.92, 0.84)), *slow((1, (0.75, 0.81), (0.93, 0.86)))]
)
def test_families_of_licences_against_curated_ones(
    shared: Path,
    tmp_path: Path,
    record_property: Record,
    step: int,
    precision: tuple[float, float],
    recall: tuple[float, float],
) -> None:
    corpus = Corpus(tmp_path)
    curated = licences(shared, corpus, step)
    for threshold, *least in zip(THRESHOLDS, precision, recall, strict=True):
        corpus.set(deduplicate={"threshold": threshold})
        corpus.update("deduplicated")
        with corpus.state() as connection:
            rows = connection.execute(
                "SELECT r.record, d.cluster_id FROM deduplicated AS d JOIN raw AS r USING (document_id)"
            ).fetchall()
        found = b_cubed(dict(rows), curated)
        record_property(f"B-cubed precision and recall at {threshold}", found)
        assert found[0] >= least[0]
        assert found[1] >= least[1]


def b_cubed(found: dict[str, Any], curated: dict[str, str]) -> tuple[float, float]:
    """Return B-cubed precision and recall (Bagga & Baldwin, 1998): over documents, not over pairs."""
    assert found.keys() == curated.keys()
    both = Counter((found[name], curated[name]) for name in found)
    shared = [both[found[name], curated[name]] for name in found]
    precision, recall = (
        np.mean([part / sizes[groups[name]] for name, part in zip(found, shared, strict=True)])
        for groups, sizes in ((found, Counter(found.values())), (curated, Counter(curated.values())))
    )
    return float(precision), float(recall)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_generated_documents(
    shared: Path, tmp_path: Path, record_property: Record
) -> None:
    corpus = Corpus(tmp_path)
    corpus.threads = 2
    tool = shared / "tools" / "make_load.py"
    out = corpus.root / "generated"
    subprocess.run(
        [sys.executable, str(tool), "synth", "--docs", "100000", "--out", str(out)],
        check=True,
        capture_output=True,
    )
    corpus.sources = [SourceConfig("generated", str(out), include=("**/*.parquet",))]
    check_pairs(corpus, words_of_letters, record_property, least=3_000)


def words_of_letters(text: str) -> list[str]:
    """Return the words of a text that has no other letters than a to z, and no digits."""
    assert text.isascii()
    return re.findall("[a-z]+", text.lower())

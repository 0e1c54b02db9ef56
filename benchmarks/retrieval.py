"""The retrieval benchmark: chunks by Stemma and by other splitters, embedded by the same model, same k.

    python benchmarks/retrieval.py [--data FOLDER]        # the five corpora of Chroma's report, or three of them
    python benchmarks/retrieval.py --grid                 # the two corpora that parameters are chosen on
    python benchmarks/retrieval.py --xquad                # 12 languages, nothing tuned there

The measures are those of Chroma's report (Smith and Troynikov, 2024): recall, precision, PΩ and IoU of the 5 nearest
chunks, in percent, means over the questions; all corpora are one index, as there. FOLDER holds corpora/*.md and
questions.jsonl (question, references with start_index and end_index, corpus_id); by default it is the shared folder's
d1_chunking_evaluation, which has three of the five corpora. For all five, take corpora and questions_df.csv (its
lines as JSON) from github.com/brandonstarxel/chunking_evaluation, general_evaluation_data.

Parameters were chosen on state_of_the_union and wikitexts (`--grid`); the others are held out.

chonkie's TokenChunker is left out: its chunks are decoded tokens, which for this model are no spans of the text.

The splitters have an environment of their own:

    python3 -m venv .bench-venv/chunking
    .bench-venv/chunking/bin/pip install chonkie==1.7.0 semchunk langchain-text-splitters llama-index-core \\
        tiktoken tokenizers

`smoothed` adds 0.3 of the vectors of the neighbours in the document; `headings` embeds the heading path before the
text; `hybrid` adds BM25 at a quarter of the weight, both scaled to 0..1 over the chunks for each question. Vectors are
kept in .bench/retrieval, by text.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.chunking import chunk, load_tokenizer
from stemma.chunking.joined import join
from stemma.chunking.words import find_words, word_hashes
from stemma.evaluation import Place, Question, mean_scores, nearest, retrieval_scores
from stemma.resources.embedder import resolve_embedder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STATE = ROOT / ".bench/retrieval"
SHARED = Path(os.environ.get("STEMMA_SHARED", ROOT.parent / "shared"))
PEERS = ROOT / ".bench-venv/chunking/bin/python"

K = 5
CHOSEN_ON = ("state_of_the_union", "wikitexts")
SMOOTHING = 0.3
BM25_WEIGHT = 0.25
BM25_K1, BM25_B = 1.2, 0.75
MEASURES = ("recall", "precision", "precision_omega", "iou")

# Rows of the report for all-MiniLM-L6-v2, k = 5, means over all five corpora.
PUBLISHED = {
    "Recursive 200/0": (75.7, 6.5, 31.2, 6.5),
    "TokenText 200/0": (76.6, 4.1, 19.1, 4.1),
    "TokenText 250/125": (82.4, 3.6, 11.4, 3.5),
    "ClusterSemantic 200": (75.2, 7.2, 33.6, 7.2),
    "ClusterSemantic 250": (77.3, 6.1, 28.6, 6.0),
}
# Strategy, target and most tokens, and overlap if there is one.
OURS = ("structure/48/96", "structure/64/128", "structure/96/160", "structure/125/200", "semantic/96/160")
OURS_PLAIN = ("recursive/0/200", "fixed/0/200")
THEIRS = (
    "chroma-recursive/200/0",
    "chroma-tokens/200/0",
    "chroma-tokens/250/125",
    "chonkie-recursive/200/0",
    "chonkie-sentence/200/0",
    "semchunk/200/0",
    "langchain/200/0",
    "llama-index/200/0",
)
Vectors = npt.NDArray[np.float32]


@dataclass
class Corpus:
    """Texts with the questions asked of them."""

    names: list[str]
    texts: list[str]
    questions: list[Question]


@dataclass
class Chunks:
    """The chunks of all texts, in order: document, char_start, char_end, tokens, text and section."""

    table: pa.Table
    seconds: float

    def texts(self, headings: bool = False) -> list[str]:
        texts, sections = self.table["text"].to_pylist(), self.table["section"].to_pylist()
        if not headings:
            return texts
        return [
            f"{section}\n\n{text}" if section else text for text, section in zip(texts, sections, strict=True)
        ]


# -- data ----------------------------------------------------------------------------------------------------------


def read_corpus(folder: Path, names: Sequence[str] | None = None) -> Corpus:
    lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    present = sorted({row["corpus_id"] for row in rows} if names is None else names)
    texts = [(folder / f"corpora/{name}.md").read_bytes().decode() for name in present]
    questions = [
        Question(
            row["question"],
            tuple(
                (Place(present.index(row["corpus_id"]), each["start_index"], each["end_index"]),)
                for each in row["references"]
            ),
        )
        for row in rows
        if row["corpus_id"] in present
    ]
    return Corpus(present, texts, questions)


def read_xquad(language: str) -> Corpus:
    """The paragraphs of each article as one document; a question's answer is the sentence that holds it."""
    from stemma.chunking.boundaries import find_sentences

    file = SHARED / f"data/d2_xquad/xquad.{language}.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    titles = list(dict.fromkeys(row["title"] for row in rows))
    texts: dict[str, str] = dict.fromkeys(titles, "")
    questions = []
    for row in rows:
        offset = len(texts[row["title"]])
        texts[row["title"]] += row["context"] + "\n\n"
        joined = join([row["context"]])
        sentences = [0, *(find_sentences(joined) - joined.starts[0]).tolist(), len(row["context"])]
        for each in row["qas"]:
            answer = each["answers"][0]["answer_start"]
            start, end = next((low, high) for low, high in pairwise(sentences) if low <= answer < high)
            end = start + len(row["context"][start:end].rstrip())
            place = Place(titles.index(row["title"]), offset + start, offset + end)
            questions.append(Question(each["question"], ((place,),)))
    return Corpus(titles, list(texts.values()), questions)


# -- chunks --------------------------------------------------------------------------------------------------------


def our_chunks(corpus: Corpus, name: str, tokenizer: Path) -> Chunks:
    strategy, target, most, *overlap = name.split("/")
    counter = load_tokenizer(tokenizer)
    started = time.perf_counter()
    found = chunk(
        pa.table({"text": corpus.texts}),
        strategy=strategy,
        max_tokens=int(most),
        target_tokens=int(target) or None,
        overlap=int(overlap[0]) if overlap else 0,
        tokenizer="",
        model=counter,
    )["chunks"]
    seconds = time.perf_counter() - started
    rows = [{"document": number, **each} for number, row in enumerate(found.to_pylist()) for each in row]
    return Chunks(pa.Table.from_pylist(rows), seconds)


def their_chunks(corpus: Corpus, names: Sequence[str], tokenizer: Path) -> dict[str, Chunks]:
    """Run the peers; where a chunk stands is looked up in order, as their own offsets are wrong or absent."""
    if not PEERS.exists():
        print(f"no peers: {PEERS} is absent", file=sys.stderr)
        return {}
    texts = STATE / "texts.json"
    texts.write_text(json.dumps(corpus.texts), encoding="utf-8")
    script = HERE / "peers/chunk_splitters.py"
    command = [PEERS, script, "--texts", texts, "--tokenizer", tokenizer, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, versions = map(json.loads, done.stdout.splitlines())
    print(", ".join(f"{name} {version}" for name, version in versions["versions"].items()), flush=True)
    counter = load_tokenizer(tokenizer)
    return {
        line["splitter"]: Chunks(placed(corpus, line["chunks"], counter), line["seconds"]) for line in lines
    }


def placed(corpus: Corpus, found: list[list[str]], counter: Any) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for number, (text, chunks) in enumerate(zip(corpus.texts, found, strict=True)):
        last = -1
        for body in filter(None, map(str.strip, chunks)):
            pattern = re.compile(r"\s+".join(map(re.escape, body.split())))
            match = pattern.search(text, last + 1)
            if match is None:
                raise ValueError(f"a chunk is not in {corpus.names[number]} after {last}: {body[:60]!r}")
            last = match.start()
            rows.append(
                {"document": number, "char_start": last, "char_end": match.end(), "text": body, "section": ""}
            )
    counts = counter.count([row["text"] for row in rows])
    return pa.Table.from_pylist(rows).append_column("tokens", pa.array(counts))


# -- vectors -------------------------------------------------------------------------------------------------------


class Embedding:
    """The model, and the vectors that it made, by the text's hash."""

    def __init__(self, precision: str) -> None:
        self.embedder = resolve_embedder("all-MiniLM-L6-v2", "cpu", precision)
        self.file = STATE / f"vectors-{precision}.npz"
        self.model: Any = None
        self.known: dict[str, Vectors] = {}
        if self.file.exists():
            kept = np.load(self.file)
            self.known = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    def __call__(self, texts: list[str]) -> Vectors:
        keys = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
        missing = dict(zip(keys, texts, strict=True))
        missing = {key: text for key, text in missing.items() if key not in self.known}
        if missing:
            self.model = self.model or self.embedder.load(**self.embedder.parameters)
            table = pa.table({"text": list(missing.values())})
            found = self.embedder.function(table, **self.embedder.parameters, model=self.model)["embedding"]
            vectors = found.combine_chunks().flatten().to_numpy().reshape(len(missing), -1)
            self.known.update(zip(missing, vectors, strict=True))
            np.savez(self.file, keys=list(self.known), vectors=np.array(list(self.known.values())))
        return np.array([self.known[key] for key in keys])


def smoothed(vectors: Vectors, documents: npt.NDArray[np.int64], weight: float = SMOOTHING) -> Vectors:
    """Add to each vector a share of its neighbours' in the document."""
    result = vectors.copy()
    same = (documents[1:] == documents[:-1])[:, None]
    result[1:] += weight * vectors[:-1] * same
    result[:-1] += weight * vectors[1:] * same
    return result / np.linalg.norm(result, axis=1, keepdims=True)


def bm25(questions: list[str], texts: list[str]) -> Vectors:
    """The BM25 score of each text for each question; words are runs of letters and digits, case ignored."""
    words, owners = hashed_words([*questions, *texts])
    terms, codes = np.unique(words, return_inverse=True)
    asked = owners < len(questions)
    counts = Counter(zip((owners[~asked] - len(questions)).tolist(), codes[~asked].tolist(), strict=True))
    rows, columns = np.array(list(counts)).T
    frequencies = np.array(list(counts.values()), dtype=np.float32)
    lengths = np.bincount(rows, weights=frequencies, minlength=len(texts)).astype(np.float32)
    present = np.bincount(columns, minlength=len(terms))
    rarity = np.log(1 + (len(texts) - present + 0.5) / (present + 0.5)).astype(np.float32)
    norm = BM25_K1 * (1 - BM25_B + BM25_B * lengths / lengths.mean())
    weights = rarity[columns] * frequencies * (BM25_K1 + 1) / (frequencies + norm[rows])
    order = np.argsort(columns, kind="stable")
    rows, weights, columns = rows[order], weights[order], columns[order]
    scores = np.zeros((len(questions), len(texts)), dtype=np.float32)
    for question in range(len(questions)):
        for code in np.unique(codes[asked & (owners == question)]).tolist():
            low, high = np.searchsorted(columns, (code, code + 1))
            scores[question, rows[low:high]] += weights[low:high]
    return scores


def hashed_words(texts: list[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
    joined = join(texts)
    starts, ends = find_words(joined)
    return word_hashes(joined, starts, ends), np.searchsorted(joined.starts, starts, side="right") - 1


def scaled(scores: Vectors) -> Vectors:
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    return (scores - low) / np.maximum(high - low, 1e-9)


# -- the report ----------------------------------------------------------------------------------------------------


def variants(
    corpus: Corpus, chunks: Chunks, embed: Embedding, wanted: Sequence[str]
) -> Iterator[tuple[str, pa.Table]]:
    """Yield what each way to rank gives, as a row of scores for each question."""
    asked = [question.text for question in corpus.questions]
    questions = embed(asked)
    documents = chunks.table["document"].to_numpy()
    lexical = None
    for variant in wanted:
        parts = variant.split(" + ")
        if "headings" in parts and not any(chunks.table["section"].to_pylist()):
            continue
        vectors = embed(chunks.texts("headings" in parts))
        if "smoothed" in parts:
            vectors = smoothed(vectors, documents)
        found = nearest(questions, vectors, K)
        if "hybrid" in parts:
            lexical = scaled(bm25(asked, chunks.texts())) if lexical is None else lexical
            both = (1 - BM25_WEIGHT) * scaled(questions @ vectors.T) + BM25_WEIGHT * lexical
            found = np.argsort(-both, axis=1, kind="stable")[:, :K]
        yield variant, retrieval_scores(chunks.table, corpus.questions, found)


def row(name: str, variant: str, chunks: Chunks, corpus: Corpus, scores: pa.Table, parts: list[Any]) -> str:
    """One line: the means over all questions, and those over each part of them."""
    megabytes = sum(len(text.encode()) for text in corpus.texts) / 1e6
    cells = [name, variant, f"{chunks.table.num_rows:,}", f"{mean_scores(scores)['tokens']:.0f}"]
    for part in parts:
        means = mean_scores(scores if part is None else scores.filter(pa.array(part)))
        cells.append(" / ".join(f"{100 * means[measure]:.1f}" for measure in MEASURES))
    return "| " + " | ".join([*cells, f"{megabytes / chunks.seconds:.1f}"]) + " |"


def report(options: argparse.Namespace) -> None:
    embed = Embedding(options.precision)
    tokenizer = embed.embedder.tokenizer_file
    corpus = read_corpus(options.data, CHOSEN_ON if options.grid else None)
    held_out = [
        corpus.names[question.answers[0][0].document] not in CHOSEN_ON for question in corpus.questions
    ]
    parts = [None] if options.grid else [None, held_out]
    print(
        f"{len(corpus.texts)} corpora, {len(corpus.questions)} questions, {sum(held_out)} of them held out\n"
    )
    titles = ["all: recall / precision / PΩ / IoU", "held out"][: len(parts)]
    header = ["chunks by", "vectors", "chunks", "tokens an answer", *titles, "MB/s"]
    found = {name: our_chunks(corpus, name, tokenizer) for name in options.ours}
    theirs = {} if options.grid else their_chunks(corpus, options.theirs, tokenizer)
    print("\n| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|", flush=True)
    if not options.grid:
        for name, means in PUBLISHED.items():
            cells = " / ".join(map(str, means))
            print(f"| published: {name} | dense | | | {cells} | | |")
    for name, chunks in {**found, **theirs}.items():
        wanted = options.variants if name in found else ["dense"]
        for variant, scores in variants(corpus, chunks, embed, wanted):
            print(row(name, variant, chunks, corpus, scores, parts), flush=True)


def report_xquad(options: argparse.Namespace) -> None:
    embed = Embedding(options.precision)
    header = ["language", "chunks by", "vectors", "recall / precision / PΩ / IoU"]
    print("| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|", flush=True)
    for language in options.languages:
        corpus = read_xquad(language)
        for name in options.ours:
            chunks = our_chunks(corpus, name, embed.embedder.tokenizer_file)
            for variant, scores in variants(corpus, chunks, embed, options.variants):
                means = mean_scores(scores)
                cells = " / ".join(f"{100 * means[measure]:.1f}" for measure in MEASURES)
                print(f"| {language} | {name} | {variant} | {cells} |", flush=True)


def names(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SHARED / "data/d1_chunking_evaluation")
    parser.add_argument("--grid", action="store_true", help="only the corpora that parameters are chosen on")
    parser.add_argument("--xquad", action="store_true", help="XQuAD instead")
    parser.add_argument("--languages", type=names, default=["en", "de", "ru", "zh", "th"])
    parser.add_argument(
        "--ours", type=names, default=[*OURS_PLAIN, *OURS], help="strategy/target/most[/overlap], …"
    )
    parser.add_argument("--theirs", type=names, default=list(THEIRS), help="splitter/size/overlap, …")
    parser.add_argument(
        "--variants",
        type=names,
        default=["dense", "smoothed", "headings", "headings + smoothed", "headings + smoothed + hybrid"],
    )
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    STATE.mkdir(parents=True, exist_ok=True)
    report_xquad(options) if options.xquad else report(options)


if __name__ == "__main__":
    main()

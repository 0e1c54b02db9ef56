"""What the section and the neighbours in a chunk's vector gain: dense retrieval on d1_chunking_evaluation and d2_xquad.

    python benchmarks/context.py [--sizes 64,96,128,200] [--weights 0,0.1,0.2,0.3,0.5] [--k 5]

Chunks by the strategy `structure`; a question finds its k nearest chunks of all corpora of the set. Recall is the
share of a question's relevant characters that these cover, IoU their intersection over union, both in percent and
averaged over questions (the measures of Smith & Troynikov, "Evaluating Chunking Strategies for Retrieval", 2024, by
characters). Each corpus of d1 is reported apart, so that what is chosen on some can be judged on the others.
`--storage` rounds the vectors as they would be stored.
"""

import argparse
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from stemma.chunking.chunker import chunk
from stemma.chunking.tokens import load_tokenizer
from stemma.embedding.arrays import Vectors, matrix
from stemma.embedding.context import smoothed
from stemma.embedding.storage import LARGEST, quantized
from stemma.resources.embedder import Embedder, resolve_embedder

ROOT = Path(__file__).resolve().parent.parent
WIKITEXT_HEADING = re.compile(r"^ ((?:= )+)([^=\n]+?) (?:= )+$", re.MULTILINE)
Question = tuple[str, str, list[tuple[int, int]]]  # text, corpus, relevant spans


def read_d1(shared: Path) -> tuple[dict[str, str], list[Question]]:
    folder = shared / "data/d1_chunking_evaluation"
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "corpora").glob("*.md")}
    questions = []
    for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        spans = [(each["start_index"], each["end_index"]) for each in row["references"]]
        questions.append((row["question"], row["corpus_id"], spans))
    return texts, questions


def read_d2(shared: Path, language: str) -> tuple[dict[str, str], list[Question]]:
    """Return the paragraphs of a language, joined to one document for each article, in which its questions lie."""
    with gzip.open(shared / f"data/d2_xquad/xquad.{language}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts: dict[str, str] = {}
    questions = []
    for row in rows:
        title = row["title"]
        texts[title] = texts[title] + "\n\n" if title in texts else ""
        start = len(texts[title])
        texts[title] += row["context"]
        for asked in row["qas"]:
            spans = [
                (start + answer["answer_start"], start + answer["answer_start"] + len(answer["text"]))
                for answer in asked["answers"]
            ]
            questions.append((asked["question"], title, spans))
    return texts, questions


def embed(embedder: Embedder, model: object, table: pa.Table) -> Vectors:
    return matrix(embedder.function(table, **embedder.parameters, model=model))


def chunks_of(texts: dict[str, str], size: int, embedder: Embedder) -> pa.Table:
    """Return the chunks of all texts: corpus, char_start, char_end, tokens, section, text."""
    table = pa.table({"text": list(texts.values()), "cuts": [None] * len(texts)})
    counter = load_tokenizer(embedder.tokenizer_file)
    made = chunk(table, strategy="structure", max_tokens=size, overlap=0, tokenizer="model", model=counter)
    rows = [
        {"corpus": name, **each}
        for name, found in zip(texts, made["chunks"].to_pylist(), strict=True)
        for each in found
    ]
    for row in rows:
        row["section"] = row["section"] or heading_path(
            texts[row["corpus"]], row["corpus"], row["char_start"]
        )
    return pa.Table.from_pylist(rows)


def heading_path(text: str, title: str, start: int) -> str:
    """Return the path of wikitext headings (` = = Plot = = `) above a place; for an article of d2 its title."""
    path: list[str] = []
    for line in WIKITEXT_HEADING.finditer(text, 0, start + 1):
        level = line[1].count("=")
        path = [*path[: level - 1], line[2]]
    return " > ".join(path) or (title.replace("_", " ") if title.isascii() and title[0].isupper() else "")


def smooth(vectors: Vectors, chunks: pa.Table, weight: float, most_tokens: int) -> Vectors:
    corpus = np.array(chunks["corpus"].to_pylist())
    rows = np.arange(len(corpus))
    follows = np.concatenate([[False], corpus[1:] == corpus[:-1]])
    is_small = chunks["tokens"].to_numpy() <= most_tokens
    before = np.where(follows & is_small, rows - 1, -1)
    after = np.where(np.concatenate([follows[1:], [False]]) & is_small, rows + 1, -1)
    return smoothed(vectors, rows, before, after, weight)


def scores(
    vectors: Vectors, chunks: pa.Table, asked: Vectors, questions: list[Question], k: int
) -> np.ndarray:
    """Return recall and IoU in percent for each question."""
    starts, ends = (chunks[name].to_numpy() for name in ("char_start", "char_end"))
    corpora = chunks["corpus"].to_pylist()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best = np.argsort(-(asked @ unit.T), axis=1, kind="stable")[:, :k]
    result = []
    for (_, corpus, spans), found in zip(questions, best.tolist(), strict=True):
        wanted = {place for start, end in spans for place in range(start, end)}
        taken = [(corpora[row], int(starts[row]), int(ends[row])) for row in found]
        covered = {place for name, start, end in taken if name == corpus for place in range(start, end)}
        hit, union = len(wanted & covered), len(wanted) + sum(end - start for _, start, end in taken)
        result.append((100 * hit / len(wanted), 100 * hit / (union - hit)))
    return np.array(result)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--sizes", default="64,96,128,200")
    parser.add_argument("--weights", default="0,0.1,0.2,0.3,0.5")
    parser.add_argument("--most-tokens", type=int, default=1_000, help="smooth chunks of so many at most")
    parser.add_argument("--languages", default="en")
    parser.add_argument("--storage", default="float32", choices=("float32", *LARGEST))
    parser.add_argument("--k", type=int, default=5)
    options = parser.parse_args()
    embedder = resolve_embedder(precision="auto", backend="auto")
    assert embedder.load is not None
    model = embedder.load(**embedder.parameters)
    sets = {"d1": read_d1(options.shared)}
    sets |= {f"d2 {language}": read_d2(options.shared, language) for language in options.languages.split(",")}
    print("| corpus | questions | size | mean tokens | context | smoothing | recall | IoU |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (texts, questions) in sets.items():
        asked = embed(embedder, model, pa.table({"text": [question for question, _, _ in questions]}))
        corpora = np.array([corpus if name == "d1" else name for _, corpus, _ in questions])
        for size in map(int, options.sizes.split(",")):
            chunks = chunks_of(texts, size, embedder)
            has_sections = any(chunks["section"].to_pylist())
            for context in ("none", "section") if has_sections else ("none",):
                columns = ["text", "section"] if context == "section" else ["text"]
                vectors = embed(embedder, model, chunks.select(columns))
                if options.storage != "float32":
                    whole, scales = quantized(vectors, options.storage)
                    exact = vectors
                    vectors = (whole * scales[:, None]).astype(np.float32)
                    cosines = (exact * vectors).sum(axis=1) / np.linalg.norm(vectors, axis=1)
                    print(f"<!-- {name} {size}: cosine to float32 at least {cosines.min():.9f} -->")
                for weight in map(float, options.weights.split(",")):
                    result = scores(
                        smooth(vectors, chunks, weight, options.most_tokens),
                        chunks,
                        asked,
                        questions,
                        options.k,
                    )
                    for corpus in sorted(set(corpora)):
                        recall, iou = result[corpora == corpus].mean(axis=0)
                        print(
                            f"| {corpus} | {(corpora == corpus).sum()} | {size} |"
                            f" {np.mean(chunks['tokens'].to_numpy()):.0f} | {context} | {weight:g} |"
                            f" {recall:.1f} | {iou:.1f} |",
                            flush=True,
                        )


if __name__ == "__main__":
    main()

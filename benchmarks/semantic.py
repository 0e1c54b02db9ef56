"""The layer `semantic`: what its index finds of what there is, and what a cosine says about meaning.

    python benchmarks/semantic.py [--shared ../shared] [--model all-MiniLM-L6-v2] [--out FILE]

`index` compares the candidates of `semantic_buckets` with all pairs, compared one by one, on the sentences of
b3_stsb_multi and on paragraphs of the sample registry (a1). `thresholds` says for each threshold which share of the
sentence pairs that people scored 4.5 or more of 5 reach it (found), and of those that they scored less than 3
(false). Prints Markdown. Needs the shared corpora.
"""

import argparse
import csv
import gzip
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from stemma.deduplication.candidates import candidate_pairs
from stemma.deduplication.semantic import (
    hyperplane_parameters,
    semantic_buckets,
    semantic_scores,
    sign_semantic,
    vector_array,
)
from stemma.resources.embedder import resolve_embedder

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ("en", "de", "fr")
THRESHOLDS = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.98)
WITNESSES = 64
SAME, OTHER = 4.5, 3.0  # human scores from which on two sentences say the same, and below which they don't


def sentence_pairs(shared: Path, language: str) -> tuple[list[str], np.ndarray]:
    """Return the sentences of the pairs, one pair after the other, and the pairs' scores."""
    with gzip.open(
        shared / f"data/b3_stsb_multi/stsb-{language}-dev.csv.gz", "rt", encoding="utf-8"
    ) as lines:
        rows = list(csv.reader(lines))
    return [sentence for row in rows for sentence in row[:2]], np.array([float(row[2]) for row in rows])


def paragraphs(shared: Path, most: int) -> list[str]:
    """Return paragraphs of at least 200 characters of the sample registry's plain texts, evenly chosen."""
    folder = shared / "data/a1_sample_registry/snapshot_1"
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".txt", ".md", ".rst"})
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    found = [part for text in texts for part in text.split("\n\n") if len(part) >= 200]
    return found[:: max(1, len(found) // most)]


def sign(texts: list[str], model: str) -> pa.Table:
    embedder = resolve_embedder(model)
    arguments = dict(embedder.parameters)
    if embedder.load is not None:
        arguments["model"] = embedder.load(**embedder.parameters)
    start = time.perf_counter()
    table = sign_semantic(
        pa.table({"text": texts}), embedder=embedder.name, model=partial(embedder.function, **arguments)
    )
    print(f"<!-- {len(texts)} texts embedded in {time.perf_counter() - start:.0f} s -->", flush=True)
    return table


def index_row(name: str, signed: pa.Table, threshold: float) -> str:
    """Compare the candidates with all pairs; exact copies of a vector count once."""
    signed = pa.table({"signature": signed["signature"].drop_null().unique()})
    vectors = vector_array(signed["signature"])
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    truth = {tuple(pair) for pair in np.argwhere(np.triu(cosines >= threshold, 1)).tolist()}
    mean = cosines[np.triu_indices(len(vectors), 1)].mean()
    start = time.perf_counter()
    buckets = semantic_buckets(signed, threshold=threshold)
    candidates = candidate_pairs(buckets.keys, buckets.rows, witnesses=WITNESSES)
    seconds = time.perf_counter() - start
    is_found = semantic_scores(vectors, candidates) >= threshold
    found = {tuple(sorted(pair)) for pair in candidates[is_found].tolist()}
    bands, bits = hyperplane_parameters(threshold)
    recall = len(found & truth) / len(truth) if truth else 1.0
    precision = len(found & truth) / len(found) if found else 1.0
    share = len(candidates) / (len(vectors) * (len(vectors) - 1) / 2)
    return (
        f"| {name} | {len(vectors)} | {mean:.2f} | {threshold} | {bands} × {bits} | {len(truth)} | {recall:.4f} |"
        f" {precision:.4f} | {len(candidates)} | {share:.2%} | {seconds:.2f} |"
    )


def threshold_rows(signed: dict[str, pa.Table], scores: dict[str, np.ndarray]) -> list[str]:
    rows = []
    for threshold in THRESHOLDS:
        cells = []
        for language, table in signed.items():
            vectors = vector_array(table["signature"])
            pairs = np.arange(len(vectors)).reshape(-1, 2)
            reach = semantic_scores(vectors, pairs) >= threshold
            human = scores[language]
            cells += [f"{reach[human >= SAME].mean():.3f}", f"{reach[human < OTHER].mean():.4f}"]
            cells.append(f"{(human[reach] >= OTHER).mean():.3f}" if reach.any() else "")
        rows.append(f"| {threshold} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--paragraphs", type=int, default=4_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    signed, scores = {}, {}
    for language in LANGUAGES:
        sentences, scores[language] = sentence_pairs(arguments.shared, language)
        signed[language] = sign(sentences, arguments.model)
    sample = sign(paragraphs(arguments.shared, arguments.paragraphs), arguments.model)

    lines = [
        f"## Index ({arguments.model}, {WITNESSES} witnesses)",
        "",
        "| texts | vectors | mean cosine | threshold | bands × bits | pairs there are | recall | precision | candidates"
        " | of all pairs | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, table in ((f"stsb {language}", signed[language]) for language in LANGUAGES):
        lines += [index_row(name, table, threshold) for threshold in (0.8, 0.9, 0.95)]
    lines += [index_row("sample paragraphs", sample, threshold) for threshold in (0.8, 0.9, 0.95)]
    titles = [
        f"{language} {title}" for language in LANGUAGES for title in ("found", "false", "≥ 3 among found")
    ]
    lines += ["", f"## Thresholds ({arguments.model})", "", f"| cosine | {' | '.join(titles)} |"]
    lines += ["|---" * (len(titles) + 1) + "|", *threshold_rows(signed, scores)]
    report = "\n".join(lines) + "\n"
    print(report)
    if arguments.out:
        arguments.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()

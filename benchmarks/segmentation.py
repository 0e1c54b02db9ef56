"""The segmentation benchmark: whether chunks end where topics do, and whether `chunk-eval`'s scores see it.

    python benchmarks/segmentation.py [--sizes 160/320]

Choi's documents (2000; shared folder, d4_choi_segmentation) are ten passages of different articles each, here as one
paragraph without a trace of where they were joined. P_k and WindowDiff are better where lower (about 0.5 for any
boundaries at random); `whole`, `even`, `separation` and `score` are those of `stemma chunk-eval` without questions.
"""

import argparse
import gzip
import json

import numpy as np
import pyarrow as pa
from retrieval import SHARED

from stemma.chunking import STRATEGIES, chunk, load_tokenizer
from stemma.evaluation import intrinsic_scores, p_k, window_diff
from stemma.resources.embedder import resolve_embedder


def read_documents() -> list[list[list[str]]]:
    """Return the sentences of each passage of each document."""
    file = SHARED / "data/d4_choi_segmentation/docs.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return [
        [
            [line.strip().removesuffix(" .") + "." for line in passage.splitlines() if line.strip()]
            for passage in text.split("==========")
            if passage.strip()
        ]
        for text in texts
    ]


def row(strategy: str, size: str, documents: list[list[list[str]]]) -> str:
    target, most = map(int, size.split("/"))
    sentences = [[each for passage in document for each in passage] for document in documents]
    table = pa.table({"text": [" ".join(each) for each in sentences]})
    chunks = chunk(
        table,
        strategy=strategy,
        max_tokens=most,
        target_tokens=target,
        overlap=0,
        tokenizer="",
        model=load_tokenizer(resolve_embedder().tokenizer_file),
    )["chunks"]
    figures = []
    for document, each, found in zip(documents, sentences, chunks.to_pylist(), strict=True):
        right = np.cumsum([len(passage) for passage in document])[:-1].tolist()
        ends = np.cumsum([len(sentence) + 1 for sentence in each])
        cuts = {int(np.searchsorted(ends, part["char_start"], side="right")) for part in found}
        cuts = sorted(cuts - {0, len(each)})
        figures.append((p_k(right, cuts, len(each)), window_diff(right, cuts, len(each))))
    own = intrinsic_scores(table.append_column("chunks", chunks))
    cells = [f"{own['chunks']:,.0f}", *(f"{value:.3f}" for value in np.mean(figures, axis=0))]
    cells += [f"{own[name]:.2f}" for name in ("whole", "even", "separation", "score")]
    return "| " + " | ".join([strategy, size, *cells]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="160/320", help="target/most tokens, …")
    options = parser.parse_args()
    documents = read_documents()
    header = ["chunks by", "size", "chunks", "P_k", "WindowDiff", "whole", "even", "separation", "score"]
    print("| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|")
    for size in options.sizes.split(","):
        for strategy in STRATEGIES:
            print(row(strategy, size, documents), flush=True)


if __name__ == "__main__":
    main()

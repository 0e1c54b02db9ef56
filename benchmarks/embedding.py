"""Embedding on a CPU: texts and tokens a second of Stemma's path beside sentence-transformers' and OpenVINO's.

    python benchmarks/embedding.py [--texts 400] [--rounds 3] [--systems default,torch-float32,…] [--out FILE]

The texts are chunks of the corpora in d1_chunking_evaluation, cut by Stemma's own strategy at 200 tokens, of mixed
lengths and in a fixed order that mixes them; the model is all-MiniLM-L6-v2. Each system is a process of its own, one
after the other in each round, so that all share the machine's moods; the best round counts. Wall-clock time, and
processor time of the process, by which a shared machine disturbs less. Without loading; with tokenizing.

For each: cosine to float32, whether the vectors are the same bits in batches of 1, 7 and all texts, Spearman
correlation on STS-B (en, dev), and the share of the GEMM peak: floating-point operations of the transformer's matrix
products at the length of each text, without padding, against those that torch reaches in the same process type on
matrices of 2048 × 2048 × 2048 in that precision.
"""

import argparse
import csv
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = (
    "default",
    "default-bfloat16",
    *(f"{b}-{p}" for b in ("torch", "openvino") for p in ("float32", "bfloat16")),
)
PEAK_SIZE = 2048
Encode = Callable[[list[str]], np.ndarray]


def chunk_texts(shared: Path, count: int) -> list[str]:
    """Return `count` chunks of the corpora, evenly taken and mixed."""
    import pyarrow as pa

    from stemma.chunking.chunker import chunk
    from stemma.chunking.tokens import load_tokenizer
    from stemma.resources.embedder import resolve_embedder

    files = sorted((shared / "data/d1_chunking_evaluation/corpora").glob("*.md"))
    table = pa.table(
        {"text": [path.read_text(encoding="utf-8") for path in files], "cuts": [None] * len(files)}
    )
    chunks = chunk(
        table,
        strategy="structure",
        max_tokens=200,
        overlap=0,
        tokenizer="model",
        model=load_tokenizer(resolve_embedder().tokenizer_file),
    )
    texts = [each["text"] for row in chunks["chunks"].to_pylist() for each in row]
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[row] for row in order]


def system(name: str) -> Encode:
    """Load a system; returns what embeds texts."""
    from stemma.embedding.arrays import matrix
    from stemma.resources.embedder import resolve_embedder

    kind, _, precision = name.partition("-")
    backend = "openvino" if kind == "openvino" else "torch"
    embedder = resolve_embedder(device="cpu", precision=precision or "float32", backend=backend)
    assert embedder.load is not None
    model = embedder.load(**embedder.parameters)
    if kind == "default":
        return lambda texts: model.encode(texts, show_progress_bar=False)
    import pyarrow as pa

    return lambda texts: matrix(
        embedder.function(pa.table({"text": texts}), **embedder.parameters, model=model)
    )


def operations(lengths: np.ndarray) -> float:
    """Floating-point operations of MiniLM's matrix products: 6 layers, width 384, inner width 1536."""
    linear = 2 * (4 * 384 * 384 + 2 * 384 * 1536) * lengths
    attention = 2 * 2 * 384 * lengths**2
    return float(6 * (linear + attention).sum())


def peak(precision: str) -> float:
    """Return the GEMM peak in floating-point operations a second."""
    import torch

    torch.set_num_threads(torch.get_num_threads())
    dtype = getattr(torch, precision)
    left, right = (torch.randn(PEAK_SIZE, PEAK_SIZE).to(dtype) for _ in range(2))
    torch.mm(left, right)
    seconds = min(_timed(lambda: torch.mm(left, right))[0] for _ in range(10))
    return 2 * PEAK_SIZE**3 / seconds


def _timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def spearman(shared: Path, encode: Encode) -> float:
    """Return the Spearman correlation × 100 of cosines with people's scores on STS-B (en, dev)."""
    with gzip.open(shared / "data/b3_stsb_multi/stsb-en-dev.csv.gz", "rt", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    left, right = (_unit(encode([row[side] for row in rows])) for side in (0, 1))
    ranks = [_ranks(values) for values in ((left * right).sum(axis=1), np.array([float(r[2]) for r in rows]))]
    return 100 * float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def same_bits(encode: Encode, texts: list[str]) -> float:
    """Return the share of texts whose vector is the same in batches of 1, 7 and all."""
    together = np.asarray(encode(texts))
    same = np.ones(len(texts), dtype=bool)
    for size in (1, 7):
        parts = [encode(texts[first : first + size]) for first in range(0, len(texts), size)]
        same &= (np.concatenate(parts) == together).all(axis=1)
    return float(same.mean())


def work(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one system in this process."""
    if name.startswith("peak-"):
        return {"peak": peak(name.removeprefix("peak-"))}
    texts = chunk_texts(options.shared, options.texts)
    encode = system(name)
    encode(texts[:16])
    wall, cpu, vectors = min((_timed(lambda: encode(texts)) for _ in range(2)), key=lambda each: each[0])
    result: dict[str, Any] = {"wall": wall, "cpu": cpu, "vectors": _unit(vectors).tolist()}
    if options.quality:
        result |= {"spearman": spearman(options.shared, encode), "same": same_bits(encode, texts[:60])}
    return result


def _measured(name: str, options: argparse.Namespace, *, quality: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--work", name, "--texts", str(options.texts)]
    command += ["--shared", str(options.shared), *(["--quality"] if quality else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(options: argparse.Namespace) -> str:
    """Run all systems, round by round, and return Markdown."""
    from tokenizers import Tokenizer

    from stemma.resources.embedder import resolve_embedder

    tokenizer = Tokenizer.from_file(str(resolve_embedder().tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    texts = chunk_texts(options.shared, options.texts)
    lengths = np.array([len(each) for each in tokenizer.encode_batch(texts)])
    names = options.systems.split(",")
    found: dict[str, dict[str, Any]] = {}
    for number in range(options.rounds):
        for name in ["peak-float32", "peak-bfloat16", *names]:
            now = _measured(name, options, quality=number == 0 and not options.speed_only)
            best = found.setdefault(name, now)
            for key in ("wall", "cpu"):
                best[key] = min(best.get(key, 0), now.get(key, 0))
            best["peak"] = max(best.get("peak", 0), now.get("peak", 0))
            told = f"{now.get('wall', 0):.2f} s, processor {now.get('cpu', 0):.2f} s"
            print(f"<!-- round {number + 1}: {name} {told} -->", file=sys.stderr, flush=True)
    exact = np.array(found[names[0]]["vectors"])
    tokens, base = int(lengths.sum()), found[names[0]]
    lines = [
        f"{len(texts)} texts, {tokens} tokens ({lengths.min()} to {lengths.max()}, median {int(np.median(lengths))});"
        f" GEMM peak {found['peak-float32']['peak'] / 1e9:.0f} GFLOP/s in float32,"
        f" {found['peak-bfloat16']['peak'] / 1e9:.0f} in bfloat16; best of {options.rounds} rounds.",
        "",
        "| system | texts/s | tokens/s | × default | × default by processor time | share of the peak | cosine, least"
        " | same bits | STS-B |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        row = found[name]
        precision = "bfloat16" if name.endswith("bfloat16") else "float32"
        share = operations(lengths) / row["wall"] / found[f"peak-{precision}"]["peak"]
        cosine = (np.array(row["vectors"]) * exact).sum(axis=1).min()
        lines.append(
            f"| {name} | {len(texts) / row['wall']:.0f} | {tokens / row['wall']:,.0f} |"
            f" {base['wall'] / row['wall']:.2f} | {base['cpu'] / row['cpu']:.2f} | {share:.0%} | {cosine:.6f} |"
            f" {row.get('same', np.nan):.0%} | {row.get('spearman', np.nan):.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--speed-only", action="store_true", help="no STS-B, no batches of other sizes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--quality", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options)))
        return
    text = report(options)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

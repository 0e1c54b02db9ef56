"""Embedding on a GPU: texts a second of Stemma and of sentence-transformers' `encode`, and how true the vectors are.

    python benchmarks/gpu.py [--model FOLDER] [--random] [--texts 20000] [--rounds 3] [--device cuda]

Texts are words drawn from the model's vocabulary, of 16 to 240 tokens, in a fixed order of mixed lengths. The systems
take turns in one process, so that all share the machine's moods; the best round counts. Wall-clock time without
loading, with tokenizing. Cosines are to Stemma's own path on the CPU in float32, for 256 texts, and `alone` tells
whether texts computed alone have the same bits as among all.

`--random` makes a model of the folder's configuration with random weights, where the weights themselves are not at
hand: its speed is that of the model, its vectors say nothing of its quality.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from stemma.embedding.arrays import matrix
from stemma.resources.embedder import Embedder, resolve_embedder

COMPARED = 256


def drawn_texts(folder: Path, count: int) -> list[str]:
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha())
    draw = random.Random(7)
    return [" ".join(draw.choices(words, k=draw.randint(16, 240))) for _ in range(count)]


def with_random_weights(folder: Path, target: Path) -> Path:
    import torch
    from transformers import AutoConfig, AutoModel

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(target)).save_pretrained(target)
    return target


def ours(folder: Path, device: str, precision: str) -> Callable[[list[str]], np.ndarray]:
    embedder: Embedder = resolve_embedder(str(folder), device, precision)
    assert embedder.load is not None
    model = embedder.load(**embedder.parameters)
    return lambda texts: matrix(
        embedder.function(pa.table({"text": texts}), **embedder.parameters, model=model)
    )


def theirs(folder: Path, device: str, precision: str, batch: int) -> Callable[[list[str]], np.ndarray]:
    import torch
    from sentence_transformers import SentenceTransformer

    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": kind})
    return lambda texts: model.encode(texts, batch_size=batch, convert_to_numpy=True).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    folder = (options.model or resolve_embedder().folder or Path()).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        if options.random:
            folder = with_random_weights(folder, Path(scratch) / "model")
        texts = drawn_texts(folder, options.texts)
        expected = ours(folder, "cpu", "float32")(texts[:COMPARED])
        systems = {f"Stemma, {kind}": ours(folder, options.device, kind) for kind in ("float32", "bfloat16")}
        for kind in ("float32", "bfloat16"):
            for batch in (32, 256):
                systems[f"encode, {kind}, batches of {batch}"] = theirs(folder, options.device, kind, batch)
        best = dict.fromkeys(systems, float("inf"))
        vectors: dict[str, np.ndarray] = {}
        for encode in systems.values():
            encode(texts[:COMPARED])
        for _ in range(options.rounds):
            for name, encode in systems.items():
                started = time.perf_counter()
                vectors[name] = encode(texts)
                best[name] = min(best[name], time.perf_counter() - started)
        print(
            "| system | texts/s | of encode, float32, batches of 32 | lowest cosine | alone |\n|---|---|---|---|---|"
        )
        floor = best["encode, float32, batches of 32"]
        for name, encode in systems.items():
            unit = vectors[name][:COMPARED] / np.linalg.norm(vectors[name][:COMPARED], axis=1, keepdims=True)
            cosines = (unit * expected / np.linalg.norm(expected, axis=1, keepdims=True)).sum(axis=1)
            alone = np.mean([np.array_equal(encode([texts[n]])[0], vectors[name][n]) for n in range(32)])
            print(
                f"| {name} | {options.texts / best[name]:,.0f} | {floor / best[name]:.2f} | {cosines.min():.6f}"
                f" | {alone:.0%} |"
            )


if __name__ == "__main__":
    main()

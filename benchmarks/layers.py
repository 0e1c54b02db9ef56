"""What each layer of duplicates is for, and how much of what there is its candidates find.

    python benchmarks/layers.py [graded] [families] [candidates] [cost] [--shared ../shared] [--model NAME] [--out FILE]

`graded` scores the answers of b2 (copied, revised lightly, revised heavily, written independently) against the
article that they answer from. `families` compares the families of the licences of b4 with the clusters that people
made. `candidates` compares what buckets of 64 witnesses, and of any number, find with all pairs, on b4 and on the
sentences of b3. `cost` takes the steps of 100,000 generated documents and 100,000 real sentences. Prints Markdown.
Needs the shared corpora.
"""

import argparse
import csv
import gzip
import json
import lzma
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from scipy.sparse import csr_array
from scipy.stats import mannwhitneyu

from stemma.deduplication import (
    Buckets,
    Policy,
    band_keys,
    band_parameters,
    candidate_pairs,
    families,
    jaccard,
    plausible_pairs,
    shingle_sets,
    sign,
    signature_array,
    sketch_array,
)
from stemma.deduplication.containment import (
    contained_buckets,
    contained_scores,
    plausible_contained,
    sign_contained,
)
from stemma.deduplication.edit import compared_forms, edit_buckets, edit_scores, plausible_edit, sign_edit
from stemma.hashing import digest, uuid_array

ROOT = Path(__file__).resolve().parent.parent
WITNESSES = 64
GRADES = ("cut", "light", "heavy", "non")
MIN_SHINGLES = 50

Scores = Callable[[Sequence[str], np.ndarray], np.ndarray]


class Layer(NamedTuple):
    """A layer as the engine uses it."""

    sign: Callable[[pa.Table], pa.Table]
    buckets: Callable[[pa.Table, float], Buckets]
    plausible: Callable[[pa.Table, np.ndarray, float], np.ndarray]
    scores: Scores


def near_buckets(signed: pa.Table, threshold: float) -> Buckets:
    bands, rows = band_parameters(threshold, 128)
    keys = band_keys(signature_array(signed["signature"]), bands, rows).ravel()
    members = np.repeat(np.arange(signed.num_rows), bands)
    return Buckets(keys, members, np.zeros(len(keys), np.int64), np.ones(len(keys), bool))


def near_plausible(signed: pa.Table, pairs: np.ndarray, threshold: float) -> np.ndarray:
    return plausible_pairs(sketch_array(signed["sketch"]), pairs, threshold)


def near_scores(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    return jaccard(shingle_sets(texts), pairs)


LAYERS = {
    "near": Layer(sign, near_buckets, near_plausible, near_scores),
    "contained": Layer(
        sign_contained, lambda signed, _: contained_buckets(signed), plausible_contained, contained_scores
    ),
    "edit": Layer(
        sign_edit, lambda signed, at: edit_buckets(signed, threshold=at), plausible_edit, edit_scores
    ),
}


class Found(NamedTuple):
    """The verified pairs of a layer, and what it took to find them."""

    pairs: np.ndarray
    scores: np.ndarray
    candidates: int
    plausible: int
    rows: int
    seconds: list[float]


def find(layer: Layer, texts: Sequence[str], threshold: float, witnesses: int = WITNESSES) -> Found:
    """Go the engine's way from distinct texts to verified pairs (int64[m, 2], the earlier in a bucket first)."""
    clock = [time.process_time()]
    signed = layer.sign(pa.table({"text": pa.array(texts, pa.string())}))
    clock.append(time.process_time())
    buckets = layer.buckets(signed, threshold)
    clock.append(time.process_time())
    rank = np.zeros(len(texts), np.int64)
    rank[buckets.rows] = buckets.rank
    order = np.lexsort((np.arange(len(texts)), rank))
    members = np.argsort(order)[buckets.rows]
    candidates = order[candidate_pairs(buckets.keys, members, witnesses=witnesses, asks=buckets.asks)]
    clock.append(time.process_time())
    plausible = candidates[layer.plausible(signed, candidates, threshold)]
    clock.append(time.process_time())
    scores = layer.scores(texts, plausible)
    clock.append(time.process_time())
    reach = scores >= threshold
    counts = len(candidates), len(plausible), len(buckets.keys)
    return Found(plausible[reach], scores[reach], *counts, np.diff(clock).tolist())


def licences(data: Path) -> list[dict]:
    with gzip.open(data / "b4_licence_clusters" / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(map(str, cells)) + " |"


# Graded rewrites ----------------------------------------------------------------------------------


def graded(options: argparse.Namespace) -> Iterator[str]:
    """The share of the answers of each grade whose score reaches a threshold, and how well scores tell them."""
    folder = options.shared / "data" / "b2_plagiarism_short_answers"
    texts, grades, pairs = [], [], []
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    originals = {row["task"]: place for place, row in enumerate(rows) if row["category"] == "orig"}
    for place, row in enumerate(rows):
        texts.append(decoded((folder / "files" / row["id"]).read_bytes()))
        if row["category"] != "orig":
            grades.append(row["category"])
            pairs.append((originals[row["task"]], place))
    scores, grade, all_pairs = {}, np.array(grades), np.array(pairs)
    for name, score in (
        ("exact", exact_scores),
        ("near", near_scores),
        ("contained", smaller_in_larger),
        ("edit", edit_scores),
        ("semantic", semantic_scores(options.model)),
    ):
        if score is not None:
            scores[name] = score(texts, all_pairs)
    counts = ", ".join(f"{np.sum(grade == name)} {name}" for name in GRADES)
    yield f"{len(grade)} answers ({counts}); AUC: of a rewrite (of each grade, of all) against `non`."
    yield ""
    head = ["layer", "at", *GRADES, *(f"AUC {name}" for name in GRADES[:3]), "AUC all"]
    thresholds = {
        "exact": [1.0],
        "near": [0.7, 0.5, 0.2],
        "contained": [0.9, 0.8, 0.5, 0.3],
        "edit": [0.9, 0.7, 0.5],
        "semantic": [0.95, 0.9, 0.8],
    }
    yield from table(
        head,
        [
            [name, at, *shares(values, grade, at), *areas(values, grade)]
            for name, values in scores.items()
            for at in thresholds[name]
        ],
    )


def decoded(data: bytes) -> str:
    """Most answers are UTF-8, the others Windows-1252."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252")


def exact_scores(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    forms = compared_forms(texts)
    return np.array([float(forms[a] == forms[b]) for a, b in pairs.tolist()])


def smaller_in_larger(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    """The set with fewer shingles has the greater share of the two in common."""
    return np.maximum(contained_scores(texts, pairs), contained_scores(texts, pairs[:, ::-1]))


def semantic_scores(model: str) -> Scores | None:
    """The scores of the semantic layer, if it is there and so is the model."""
    try:
        from stemma.deduplication import semantic
        from stemma.resources.embedder import resolve_embedder
    except ImportError:
        return None

    def scores(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
        embedder = resolve_embedder(model)
        loaded = {} if embedder.load is None else {"model": embedder.load(**embedder.parameters)}
        function = partial(embedder.function, **{**embedder.parameters, **loaded})
        signed = semantic.sign_semantic(pa.table({"text": texts}), embedder=embedder.name, model=function)
        return semantic.semantic_scores(semantic.vector_array(signed["signature"]), pairs)

    return scores


def shares(scores: np.ndarray, grade: np.ndarray, threshold: float) -> list[str]:
    return [f"{np.mean(scores[grade == name] >= threshold):.2f}" for name in GRADES]


def areas(scores: np.ndarray, grade: np.ndarray) -> list[str]:
    """The probability that a rewrite scores more than an independent answer (a tie counts half)."""
    others = scores[grade == "non"]
    rewrites = [*(scores[grade == name] for name in GRADES[:3]), scores[grade != "non"]]
    return [f"{mannwhitneyu(some, others).statistic / (len(some) * len(others)):.3f}" for some in rewrites]


# Families -----------------------------------------------------------------------------------------

POLICIES: tuple[dict[str, float], ...] = (
    {"exact": 1.0},
    {"near": 0.8},
    {"near": 0.7},
    {"near": 0.5},
    {"contained": 0.9},
    {"near": 0.7, "contained": 0.9},
    {"near": 0.7, "contained": 0.8},
    {"near": 0.5, "contained": 0.9},
)


def family_scores(options: argparse.Namespace) -> Iterator[str]:
    """Families of licences against the clusters of their curators, and how many removals stay within one."""
    rows = licences(options.shared / "data")
    texts = [row["text"] for row in rows]
    truth = np.unique([row["cluster"] for row in rows], return_inverse=True)[1]
    nodes, first, place = np.unique(compared_forms(texts), return_index=True, return_inverse=True)
    names = uuid_array(digest(node.encode()) for node in nodes.tolist())
    documents = pa.table(
        {
            "document_id": uuid_array(digest(str(number).encode()) for number in range(len(texts))),
            "node": names.take(pa.array(place)),
            "policy": pa.array(np.zeros(len(texts), np.int64)),
            "rank": pa.array(np.zeros(len(texts), np.int64)),
            "document_date": pa.nulls(len(texts), pa.date32()),
            "length": pa.array([len(text) for text in texts], pa.int64()),
            "quality": pa.nulls(len(texts), pa.float64()),
        }
    )
    kept = [texts[number] for number in first.tolist()]
    edges = {
        (name, at): edges_of(name, find(LAYERS[name], kept, at), names)
        for policy in POLICIES
        for name, at in policy.items()
        if name in LAYERS
    }
    none = edges["near", 0.7].slice(0, 0)
    yield f"{len(texts)} licences in {truth.max() + 1} clusters; the longest of a family is kept."
    yield ""
    head = ["layers", "pairs P", "pairs R", "B³ P", "B³ R", "B³ F1", "families", "removed", "in its cluster"]
    body = []
    for policy in POLICIES:
        chosen = pa.concat_tables([none, *(edges[part] for part in policy.items() if part in edges)])
        solved = families(documents, chosen, policies=[Policy({"exact": 1.0} | policy)], keep="longest")
        body.append([named(policy), *family_cells(solved, truth)])
    yield from table(head, body)


def named(policy: dict[str, float]) -> str:
    return " + ".join(name if name == "exact" else f"{name} {at}" for name, at in policy.items())


def edges_of(name: str, found: Found, names: pa.Array) -> pa.Table:
    a, b = (names.take(pa.array(found.pairs[:, side])) for side in (0, 1))
    method = pa.array([name] * len(found.pairs), pa.string())
    return pa.table({"a": a, "b": b, "method": method, "similarity": pa.array(found.scores)})


def family_cells(solved: pa.Table, truth: np.ndarray) -> list[str]:
    ids = [value.bytes for value in solved["document_id"].to_pylist()]
    clusters = np.unique([value.hex for value in solved["cluster_id"].to_pylist()], return_inverse=True)[1]
    place = {name: number for number, name in enumerate(ids)}
    witness = [place[value.bytes] if value else -1 for value in solved["kept_document_id"].to_pylist()]
    removed = np.flatnonzero(np.array(witness) >= 0)
    is_right = truth[removed] == truth[np.array(witness)[removed]]
    pair_precision, pair_recall, precision, recall = cluster_scores(clusters, truth)
    f1 = 2 * precision * recall / (precision + recall)
    scores = [f"{value:.3f}" for value in (pair_precision, pair_recall, precision, recall, f1)]
    return [*scores, str(clusters.max() + 1), str(len(removed)), f"{is_right.mean():.3f}"]


def cluster_scores(found: np.ndarray, truth: np.ndarray) -> tuple[float, float, float, float]:
    """Return precision and recall of the pairs, and of B-cubed (Bagga and Baldwin, 1998)."""
    both = np.unique(np.stack((found, truth)), axis=1, return_inverse=True)[1].ravel()
    common, in_found, in_truth = (np.bincount(part)[part] for part in (both, found, truth))
    pairs = [np.sum(size - 1) for size in (common, in_found, in_truth)]
    precision, recall = np.mean(common / in_found), np.mean(common / in_truth)
    return pairs[0] / max(pairs[1], 1), pairs[0] / pairs[2], float(precision), float(recall)


# Candidates ---------------------------------------------------------------------------------------


def candidates(options: argparse.Namespace) -> Iterator[str]:
    """What is found of all pairs; seconds are processor time from texts to verified pairs with 64 witnesses.

    Texts found: of those that are the second of a pair (the contained one, or the later in the list), the share
    that is found in one at least.
    """
    head = ["layer", "texts", "number", "at", "pairs there are", "precision", "recall, any witnesses"]
    head += [f"recall, {WITNESSES}", "texts found", "rows a text", "candidates a text", "plausible", "s"]
    texts = [row["text"] for row in licences(options.shared / "data")]
    texts = distinct(texts)
    body = []
    for name, truth in (("near", all_near(texts)), ("contained", all_contained(texts))):
        for at in (0.9, 0.8, 0.7):
            body.append(
                [name, "b4 licences", len(texts), at, *candidate_cells(LAYERS[name], texts, truth, at)]
            )
    for language in ("en", "ja", "ru"):
        some = sentences(options.shared / "data", language)
        truth = all_edits(some)
        for at in (0.95, 0.9, 0.85, 0.8):
            body.append(
                ["edit", f"b3 {language}", len(some), at, *candidate_cells(LAYERS["edit"], some, truth, at)]
            )
    yield from table(head, body)


def candidate_cells(layer: Layer, texts: Sequence[str], truth: np.ndarray, threshold: float) -> list[object]:
    """Compare with `truth` (float[n, n]): scores of a pair (row, column) where it counts, else -1."""
    true = set(map(tuple, np.argwhere(truth >= threshold).tolist()))
    found = find(layer, texts, threshold)
    limited, unlimited = (
        set(oriented(some.pairs, truth))
        for some in (found, find(layer, texts, threshold, witnesses=len(texts)))
    )
    right = limited & true
    return [
        len(true),
        share(len(right), len(limited)),
        share(len(unlimited & true), len(true)),
        share(len(right), len(true)),
        share(len({text for _, text in right}), len({text for _, text in true})),
        f"{found.rows / len(texts):.0f}",
        f"{found.candidates / len(texts):.1f}",
        f"{found.plausible / len(texts):.1f}",
        f"{sum(found.seconds):.1f}",
    ]


def share(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else ""


def oriented(pairs: np.ndarray, truth: np.ndarray) -> Iterator[tuple[int, int]]:
    """Turn each pair so that it counts."""
    for a, b in pairs.tolist():
        yield (a, b) if truth[a, b] >= 0 else (b, a)


def all_near(texts: Sequence[str]) -> np.ndarray:
    shared, sizes = intersections(texts)
    return np.where(np.tri(len(texts), k=-1).T > 0, shared / (sizes[:, None] + sizes - shared), -1)


def all_contained(texts: Sequence[str]) -> np.ndarray:
    """Of two texts of equal size the first contains the second, as in a bucket."""
    shared, sizes = intersections(texts)
    order = np.argsort(np.lexsort((np.arange(len(texts)), -sizes)))
    counts = (order[:, None] < order) & (sizes >= MIN_SHINGLES)
    return np.where(counts, shared / np.maximum(sizes, 1), -1)


def intersections(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return how many shingles each two texts share (float64[n, n]), and how many each has."""
    sets = shingle_sets(texts)
    sizes = np.array([len(members) for members in sets])
    columns = np.unique(np.concatenate(sets), return_inverse=True)[1]
    ones = np.ones(len(columns))
    incidence = csr_array((ones, columns, np.concatenate(([0], np.cumsum(sizes)))))
    return (incidence @ incidence.T).toarray(), sizes


def sentences(data: Path, language: str) -> list[str]:
    path = data / "b3_stsb_multi" / f"stsb-{language}-dev.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [sentence for row in csv.reader(lines) for sentence in row[:2]]
    return distinct(texts, max_characters=256)


def all_edits(texts: Sequence[str]) -> np.ndarray:
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    forms = compared_forms(texts)
    ratios = cdist(forms, forms, scorer=Levenshtein.normalized_similarity, dtype=np.float64)
    return np.where(np.tri(len(texts), k=-1).T > 0, ratios, -1)


# Cost ---------------------------------------------------------------------------------------------

DOCUMENTS = 100_000


def cost(options: argparse.Namespace) -> Iterator[str]:
    """Processor seconds of each step, with 64 witnesses."""
    head = ["layer", "texts", "number", "MB", "at", "rows a text", "candidates a text", "plausible", "found"]
    head += ["sign s", "buckets s", "pairs s", "plausible s", "scores s"]
    documents, lines = generated(options.shared), real_sentences(options.shared / "data")
    body = []
    for name, kind, texts, at in (
        ("near", "generated", documents, 0.7),
        ("contained", "generated", documents, 0.9),
        ("edit", "sentences", lines, 0.95),
        ("edit", "sentences", lines, 0.9),
        ("edit", "sentences", lines, 0.85),
    ):
        found = find(LAYERS[name], texts, at)
        size = sum(len(text.encode()) for text in texts) / 1e6
        row = [name, kind, len(texts), f"{size:.0f}", at, f"{found.rows / len(texts):.0f}"]
        row += [f"{count / len(texts):.1f}" for count in (found.candidates, found.plausible)]
        body.append([*row, len(found.pairs), *(f"{seconds:.1f}" for seconds in found.seconds)])
    yield from table(head, body)


def generated(shared: Path) -> list[str]:
    """Distinct documents of about 160 words, 30 % of which are edited copies, by the load tool."""
    tool = [sys.executable, str(shared / "tools" / "make_load.py"), "synth", "--docs", str(DOCUMENTS)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*tool, "--seed", "3", "--out", folder], check=True, stdout=subprocess.DEVNULL)
        texts = [text for path in sorted(Path(folder).rglob("*.parquet")) for text in read_texts(path)]
    return distinct(texts)


def read_texts(path: Path) -> list[str]:
    return parquet.read_table(path, columns=["text"])["text"].to_pylist()


def real_sentences(data: Path) -> list[str]:
    """Sentences of PEPs, licences, XQuAD in twelve languages and STS-B in eleven, a sample of those there are."""
    with lzma.open(data / "a4_pep_events" / "base.jsonl.xz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    texts += [row["text"] for row in licences(data)]
    for path in sorted((data / "d2_xquad").glob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["context"] for line in lines]
    parts = [part for text in texts for part in re.split(r"(?<=[.!?;])\s+|\n\n", text)]
    for path in sorted((data / "b3_stsb_multi").glob("*.gz")):
        parts += sentences(data, path.name.split("-")[1])
    some = distinct(parts, max_characters=256)
    return random.Random(3).sample(some, min(DOCUMENTS, len(some)))


def distinct(texts: Sequence[str], max_characters: int | None = None) -> list[str]:
    """Return the first text of each that are equal in their words, in their order."""
    forms = compared_forms(texts, max_characters=max_characters)
    firsts = {form: place for place, form in reversed(list(enumerate(forms))) if form}
    return [texts[place] for place in sorted(firsts.values())]


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "graded": graded,
    "families": family_scores,
    "candidates": candidates,
    "cost": cost,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; none: all")
    parser.add_argument(
        "--shared",
        type=Path,
        default=Path(os.environ.get("STEMMA_SHARED", ROOT.parent / "shared")),
        help="the shared corpora",
    )
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="of the semantic layer")
    parser.add_argument("--out", type=Path, help="where to write what is printed as well")
    options = parser.parse_args()
    unknown = set(options.sections) - SECTIONS.keys()
    if unknown:
        parser.error(f"unknown section {', '.join(sorted(unknown))} (of {', '.join(SECTIONS)})")
    report = ""
    for name in options.sections or SECTIONS:
        section = "\n".join([f"## {name}", "", *SECTIONS[name](options), "", ""])
        print(section, flush=True)
        report += section
    if options.out:
        options.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()

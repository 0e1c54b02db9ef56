"""Train the model that tells a page's content from its boilerplate, and say how good it is.

    git clone https://github.com/Murrough-Foley/web-content-extraction-benchmark wcxb
    pip install catboost rapidfuzz
    python benchmarks/train_blocks.py --wcxb wcxb --out stemma/cleaning/extraction/block_model.json

It learns from the development pages of WCXB (CC-BY-4.0) alone. What it prints is word-F1 in a cross-validation
over five groups of domains (a page is scored by trees that saw no page of its domain) and, where the folder
has the benchmark's held-out pages, on those. Words and trees of the file are trained on all development pages.
"""

import argparse
import gzip
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from stemma.cleaning.extraction.block_model import (
    LEAF_SCALE,
    Lexicon,
    choice,
    features,
    parse_model,
    second_features,
)
from stemma.cleaning.extraction.html import _parse
from stemma.cleaning.extraction.page_blocks import Page, read_page, words_of_name
from stemma.cleaning.extraction.page_metadata import read_metadata

ABOUT = (
    "Made by benchmarks/train_blocks.py from the development pages of WCXB, the Web Content eXtraction "
    "Benchmark, by Murrough Foley (2026), https://github.com/Murrough-Foley/web-content-extraction-benchmark, "
    "CC-BY-4.0. names and words: log-odds of being content. first and second: oblivious trees; all answers of "
    "a tree (is the feature above the threshold?) are the bits of its leaf, leaves are in thousandths."
)
FOLDS = 5
PARAMETERS = {
    "iterations": 240, "depth": 6, "learning_rate": 0.12, "l2_leaf_reg": 5, "border_count": 64, "rsm": 0.5,
    "random_seed": 1, "verbose": 0, "allow_writing_files": False,
}  # fmt: skip
# A word must stand on pages of so many domains, and say so much, to be in the lexicon.
NAME_DOMAINS, WORD_DOMAINS, LEAST_ODDS = 8, 15, 0.5
# Most blocks are plain navigation: one of so many is enough to learn from.
THINNING = 3
WORD = re.compile(r"\w+")


@dataclass
class Labelled:
    """A page with its truth: for each block, its words and which share of them is content."""

    name: str
    kind: str
    domain: str
    page: Page
    hints: Mapping[str, float]
    words: list[list[str]]
    shares: np.ndarray
    truth: Counter[str]

    @property
    def sizes(self) -> np.ndarray:
        return np.array([len(words) for words in self.words], float)


# --- pages and labels ---------------------------------------------------------------------------------------


def read_pages(folder: Path) -> Iterator[Labelled]:
    for path in sorted((folder / "ground-truth").glob("*.json")):
        data = json.loads(path.read_text("utf-8"))
        html = gzip.decompress((folder / "html" / f"{path.stem}.html.gz").read_bytes()).decode(
            "utf-8", "replace"
        )
        root = _parse(html.replace("\x00", ""))
        body = None if root is None else root.find("body")
        if body is not None:
            kind = ((data.get("_internal") or {}).get("page_type") or {}).get("primary", "article")
            address = urlparse(data.get("url") or "").netloc.removeprefix("www.")
            truth = data["ground_truth"].get("main_content") or ""
            yield label(
                path.stem, kind, address or path.stem, read_page(body), read_metadata(root).hints, truth
            )


def label(name: str, kind: str, domain: str, page: Page, hints: Mapping[str, float], truth: str) -> Labelled:
    """Align the page's words with those of its truth: the longest common subsequence is content."""
    from rapidfuzz.distance import LCSseq

    words = [WORD.findall(text.lower()) for text in page.texts]
    numbers: dict[str, int] = {}
    shown = [numbers.setdefault(word, len(numbers)) for block in words for word in block]
    wanted = [numbers.setdefault(word, len(numbers)) for word in WORD.findall(truth.lower())]
    is_content = np.zeros(len(shown))
    if shown and wanted:
        for step in LCSseq.opcodes(shown, wanted):
            if step.tag == "equal":
                is_content[step.src_start : step.src_end] = 1
    sizes = [len(block) for block in words]
    owners = np.repeat(np.arange(len(words)), sizes)
    shares = np.bincount(owners, is_content, minlength=len(words)) / np.maximum(sizes, 1)
    kind = "collection" if kind == "category" else kind
    return Labelled(name, kind, domain, page, hints, words, shares, Counter(WORD.findall(truth.lower())))


def word_f1(found: Counter[str], truth: Counter[str]) -> float:
    """The benchmark's measure; where there is nothing to find, nothing is right."""
    if not truth:
        return float(not found)
    return 2 * (found & truth).total() / (found.total() + truth.total())


def fold_of(domain: str) -> int:
    return int(hashlib.sha256(domain.encode()).hexdigest(), 16) % FOLDS


# --- the lexicon --------------------------------------------------------------------------------------------


def page_shares(item: Labelled) -> tuple[dict[str, float], dict[str, float]]:
    """For each word in names, which share of the text below is content; for each word, of its blocks."""
    sizes, content = (np.concatenate([[0], np.cumsum(v)]) for v in (item.sizes, item.sizes * item.shares))
    below: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, first, last in zip(item.page.names, item.page.first, item.page.last, strict=True):
        if sizes[last] > sizes[first]:
            for word in words_of_name(name):
                below[word][0] += sizes[last] - sizes[first]
                below[word][1] += content[last] - content[first]
    blocks: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for text, share in zip(item.page.texts, item.shares, strict=True):
        for word in set(text[:120].lower().split()[:12]):
            blocks[word][0] += 1
            blocks[word][1] += share >= 0.5
    return tuple({word: part / all_ for word, (all_, part) in counts.items()} for counts in (below, blocks))


def make_lexicon(items: Sequence[Labelled], shares: Mapping[str, tuple[dict, dict]]) -> Lexicon:
    def odds(which: int, domains: int) -> dict[str, float]:
        seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for item in items:
            for word, share in shares[item.name][which].items():
                seen[word][item.domain].append(share)
        means = {w: [sum(v) / len(v) for v in d.values()] for w, d in seen.items() if len(d) >= domains}
        usual = sum(sum(values) / len(values) for values in means.values()) / len(means)
        logits = {w: logit((sum(v) + 2 * usual) / (len(v) + 2)) - logit(usual) for w, v in means.items()}
        return {word: round(value, 1) for word, value in sorted(logits.items()) if abs(value) >= LEAST_ODDS}

    return Lexicon(odds(0, NAME_DOMAINS), odds(1, WORD_DOMAINS))


def logit(share: float) -> float:
    return math.log(share / (1 - share))


# --- the trees ----------------------------------------------------------------------------------------------


def fit(tables: Sequence[dict[str, np.ndarray]], items: Sequence[Labelled]) -> dict[str, Any]:
    """Fit the trees of one stage, and write them as the model's file has them."""
    from catboost import CatBoostClassifier, Pool

    names = list(tables[0])
    rows, labels, weights = [], [], []
    for table, item in zip(tables, items, strict=True):
        plain = ((table["in_nav"] + table["in_footer"]) > 0) & (item.shares < 0.5)
        chosen = ~plain | (np.arange(len(plain)) % THINNING == 0)
        # Each page counts the same, whatever its length, and each block of it by its words.
        weight = item.sizes / (item.truth.total() + 0.1 * item.sizes.sum() + 20)
        rows.append(np.array([table[name] for name in names], np.float32).T[chosen])
        labels.append((item.shares >= 0.5)[chosen])
        weights.append(((np.minimum(weight, 0.3) + 0.0003) * np.where(plain, THINNING, 1))[chosen])
    weight = np.concatenate(weights)
    pool = Pool(np.concatenate(rows), np.concatenate(labels).astype(int), weight=weight / weight.mean())
    return export(CatBoostClassifier(**PARAMETERS).fit(pool))


def export(classifier: Any) -> dict[str, Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        classifier.save_model(f"{folder}/model.json", format="json")
        model = json.loads(Path(folder, "model.json").read_text())
    scale, (bias,) = model["scale_and_bias"]
    trees = [tree for tree in model["oblivious_trees"] if len(tree["splits"]) == PARAMETERS["depth"]]
    return {
        "bias": round(bias * LEAF_SCALE),
        "features": [[split["float_feature_index"] for split in tree["splits"]] for tree in trees],
        "thresholds": [[float(f"{split['border']:.5g}") for split in tree["splits"]] for tree in trees],
        "leaves": [[round(value * scale * LEAF_SCALE) for value in tree["leaf_values"]] for tree in trees],
    }


def cross_validate(
    tables: Sequence[dict], items: Sequence[Labelled]
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """The probabilities of each page's blocks by trees that saw no page of its fold, and those trees."""
    found: list[np.ndarray] = [np.zeros(0)] * len(items)
    stages = []
    for fold in range(FOLDS):
        inside = [index for index, item in enumerate(items) if fold_of(item.domain) == fold]
        rest = [index for index, item in enumerate(items) if fold_of(item.domain) != fold]
        stage = fit([tables[index] for index in rest], [items[index] for index in rest])
        trees = parse_model({"names": {}, "words": {}, "first": stage, "second": stage}).first
        for index in inside:
            found[index] = trees.probabilities(tables[index])
        stages.append(stage)
        print(f"  fold {fold + 1} of {FOLDS}", flush=True)
    return found, stages


# --- the report ---------------------------------------------------------------------------------------------


def report(title: str, items: Sequence[Labelled], choices: Sequence[np.ndarray]) -> None:
    kinds = defaultdict(list)
    for item, kept in zip(items, choices, strict=True):
        found = Counter(word for words, keep in zip(item.words, kept, strict=True) if keep for word in words)
        kinds[item.kind].append(word_f1(found, item.truth))
    means = {kind: float(np.mean(scores)) for kind, scores in sorted(kinds.items())}
    pages = float(np.mean([score for scores in kinds.values() for score in scores]))
    by_kind = ", ".join(f"{kind} {mean:.3f}" for kind, mean in means.items())
    print(
        f"{title}: {pages:.4f} a page, {np.mean(list(means.values())):.4f} a page type ({by_kind})",
        flush=True,
    )


def choose(items: Sequence[Labelled], probabilities: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [choice(item.page, found) for item, found in zip(items, probabilities, strict=True)]


def train(items: list[Labelled], folds: Path | None) -> dict[str, Any]:
    shares = {item.name: page_shares(item) for item in items}
    lexicons = [
        make_lexicon([i for i in items if fold_of(i.domain) != fold], shares) for fold in range(FOLDS)
    ]
    tables = [features(item.page, lexicons[fold_of(item.domain)], item.hints) for item in items]
    first, first_stages = cross_validate(tables, items)
    report("first stage, cross-validated", items, choose(items, first))
    seen = [table | second_features(i.page, p) for table, i, p in zip(tables, items, first, strict=True)]
    second, second_stages = cross_validate(seen, items)
    report("both stages, cross-validated", items, choose(items, second))
    columns = {"first": list(tables[0]), "second": list(seen[0])}

    def model(lexicon: Lexicon, first_stage: dict[str, Any], second_stage: dict[str, Any]) -> dict[str, Any]:
        words = {"about": ABOUT, "names": lexicon.names, "words": lexicon.words}
        return words | {"columns": columns, "first": first_stage, "second": second_stage}

    if folds is not None:
        folds.mkdir(parents=True, exist_ok=True)
        for fold, parts in enumerate(zip(lexicons, first_stages, second_stages, strict=True)):
            write_model(model(*parts), folds / f"fold_{fold}.json")
    return model(make_lexicon(items, shares), fit(tables, items), fit(seen, items))


def test(model_data: dict[str, Any], items: Sequence[Labelled], known_domains: set[str]) -> None:
    model = parse_model(model_data)
    choices = []
    for item in items:
        seen = features(item.page, model.lexicon, item.hints)
        first = model.first.probabilities(seen)
        second = model.second.probabilities(seen | second_features(item.page, first))
        choices.append(choice(item.page, second))
    report("held-out pages", items, choices)
    new = [index for index, item in enumerate(items) if item.domain not in known_domains]
    report("of domains never seen", [items[i] for i in new], [choices[i] for i in new])


def write_model(data: dict[str, Any], path: Path) -> None:
    """One line for each tree and each list, so that a change can be read as one."""
    compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def lines(value: Any, depth: int) -> str:
        if depth and isinstance(value, dict):
            inner = ",\n".join(f"{compact(key)}:{lines(item, depth - 1)}" for key, item in value.items())
            return "{\n" + inner + "\n}"
        if isinstance(value, list) and value and isinstance(value[0], list):
            return "[\n" + ",\n".join(map(compact, value)) + "\n]"
        return compact(value)

    path.write_text(lines(data, 2) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wcxb", type=Path, required=True, help="a clone of the benchmark's repository")
    parser.add_argument("--out", type=Path, required=True, help="the model's file")
    parser.add_argument("--folds", type=Path, help="a folder for the models of the cross-validation")
    arguments = parser.parse_args()
    items = [item for item in read_pages(arguments.wcxb / "dev") if item.page.texts]
    print(f"{len(items)} pages to learn from", flush=True)
    model = train(items, arguments.folds)
    write_model(model, arguments.out)
    print(f"MODEL_DIGEST = {hashlib.sha256(arguments.out.read_bytes()).hexdigest()}", flush=True)
    if (arguments.wcxb / "test").is_dir():
        held_out = [item for item in read_pages(arguments.wcxb / "test") if item.page.texts]
        test(model, held_out, {item.domain for item in items})


if __name__ == "__main__":
    main()

"""How well each mode of search finds what a question asks for, on real published corpora.

    python benchmarks/search_quality.py [--languages en,de,es] [--model all-MiniLM-L6-v2] [--shared DIR]

- XQuAD (d2): 240 paragraphs a language, 1,190 questions; the mean reciprocal rank of the question's paragraph.
- Chroma's evaluation (d1): three of its corpora, each cut into chunks of the configuration's default size; the share
  of the answers' characters in the best five chunks, averaged over questions.

The weight of BM25 in hybrid search was chosen on d1's state_of_the_union and wikitexts; all else is held out.
"""

import argparse
import gzip
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import stemma
from stemma.config import load_config
from stemma.resources.engine import Run, Setup, run_all
from stemma.resources.warehouse import Warehouse
from stemma.search import MODES, TEXT_WEIGHT, Searcher

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = (0.25, TEXT_WEIGHT, 1.0)
MOST = 50


def published(folder: Path, rows: Iterable[dict[str, str]], model: str, max_tokens: int) -> Searcher:
    """Publish a corpus of these rows and open it."""
    folder.mkdir()
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "stemma.toml").write_text(
        f'[[sources]]\npath = "rows.jsonl"\nid_field = "id"\ntext_field = "text"\nformat = "jsonl"\n\n'
        f'[chunk]\nmax_tokens = {max_tokens}\n\n[embed]\nmodel = "{model}"\n\n[deduplicate]\nlayers = ["exact"]\n'
    )
    config = load_config(folder / "stemma.toml")
    run = Run("quality", Setup.of(config), Warehouse(config.warehouse.path))
    run_all(run)
    run.warehouse.close()
    return Searcher(stemma.open(folder / "stemma.toml"))


def modes() -> dict[str, dict[str, Any]]:
    """Return the arguments of each way to search, by its name."""
    plain = {mode: {"mode": mode} for mode in MODES if mode != "hybrid"}
    return {**plain, **{f"hybrid {weight}": {"mode": "hybrid", "text_weight": weight} for weight in WEIGHTS}}


def xquad(folder: Path, language: str, model: str, shared: Path) -> dict[str, float]:
    """Return the mean reciprocal rank of each way to search."""
    with gzip.open(shared / f"data/d2_xquad/xquad.{language}.jsonl.gz", "rt", encoding="utf-8") as file:
        paragraphs = [json.loads(line) for line in file]
    rows = [{"id": each["doc_id"], "text": each["context"]} for each in paragraphs]
    searcher = published(folder, rows, model, 100_000)
    questions = [(question["question"], each["doc_id"]) for each in paragraphs for question in each["qas"]]

    def reciprocal_rank(question: tuple[str, str], **how: Any) -> float:
        found = searcher.search(question[0], MOST, **how)["record"].to_pylist()
        ranked = list(dict.fromkeys(found))
        return 1 / (ranked.index(question[1]) + 1) if question[1] in ranked else 0.0

    return measured(questions, reciprocal_rank)


def chroma(folder: Path, corpus: str, model: str, shared: Path) -> dict[str, float]:
    """Return the recall at five of each way to search."""
    data = shared / "data/d1_chunking_evaluation"
    text = (data / "corpora" / f"{corpus}.md").read_bytes().decode()
    lines = (data / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [question for question in map(json.loads, lines) if question["corpus_id"] == corpus]
    searcher = published(folder, [{"id": corpus, "text": text}], model, 200)
    # Cleaning may have moved characters: answers are looked for in the chunks as they stand in the cleaned text.
    ((cleaned,),) = searcher.connection.execute("SELECT text FROM corpus.cleaned").fetchall()

    def recall(question: dict[str, Any], **how: Any) -> float:
        hits = searcher.search(question["question"], 5, **how)
        spans = zip(hits["char_start"].to_pylist(), hits["char_end"].to_pylist(), strict=True)
        covered = {place for start, end in spans for place in range(start, end)}
        answers = [(cleaned.find(each["content"]), len(each["content"])) for each in question["references"]]
        wanted = {place for start, length in answers if start >= 0 for place in range(start, start + length)}
        return len(covered & wanted) / len(wanted) if wanted else 0.0

    return measured(questions, recall)


def measured(questions: list[Any], score: Callable[..., float]) -> dict[str, float]:
    """Return the mean score in percent of each way to search."""
    return {
        name: 100 * statistics.mean(score(question, **how) for question in questions)
        for name, how in modes().items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--languages", default="en,de,es")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    options = parser.parse_args()
    print(f"| corpus | {' | '.join(modes())} |", flush=True)
    with tempfile.TemporaryDirectory(prefix="stemma-quality-") as scratch:
        sets = dict.fromkeys(("state_of_the_union", "wikitexts", "chatlogs"), chroma)
        sets |= dict.fromkeys(options.languages.split(","), xquad)
        for name, measure in sets.items():
            found = measure(Path(scratch) / name, name, options.model, options.shared)
            print(f"| {name} | {' | '.join(f'{value:.1f}' for value in found.values())} |", flush=True)


if __name__ == "__main__":
    main()

"""Cleaning on one core: the filters beside datatrove's on the same documents, and a changed threshold.

    python benchmarks/cleaning.py [SECTION …] [--shared ../shared] [--megabytes 2] [--documents 1000000]

Sections: `filters` measures every metric of Gopher, C4 and FineWeb (`stemma.cleaning.filters.metrics`) and runs
datatrove's four filters with the same words and sentences, each filter on each document. Datatrove computes a
filter's metrics only up to the first that fails; Stemma computes all of them always. `threshold` judges generated
documents by all rules of the profile `retrieval` anew after one threshold has changed. Those of
`cleaning_steps.py` are added. Seconds are processor time, the best of several runs; MB are 10^6 bytes of UTF-8.
Needs the shared corpora.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import numpy as np
import pyarrow as pa

from stemma.cleaning.filters import c4
from stemma.cleaning.filters.metrics import METRICS, measure
from stemma.cleaning.filters.recipes import profile_rules
from stemma.cleaning.filters.verdict import decisions_sql

ROOT = Path(__file__).resolve().parent.parent
BATCH = 512  # documents, as the engine commits them


def real_texts(shared: Path) -> dict[str, list[str]]:
    sys.path.insert(0, str(ROOT / "tests"))
    texts: dict[str, list[str]] = importlib.import_module("real_texts").real_texts(shared)
    return texts


def sample(texts: Sequence[str], megabytes: float) -> list[str]:
    """Take every n-th text, so that about so many megabytes come together."""
    return list(texts[:: max(1, int(size_of(texts) / megabytes))])


def size_of(texts: Sequence[str]) -> float:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6


def best_of(runs: int, work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


# -- filters -----------------------------------------------------------------------------------------------------


class SameWords:
    """A tokenizer for datatrove that splits as Stemma does."""

    word_tokenize = staticmethod(str.split)

    @staticmethod
    def span_tokenize(line: str) -> list[tuple[int, int]]:
        return [(0, len(line))] * c4.count_sentences(line)


def filters(options: argparse.Namespace) -> None:
    from datatrove.utils import word_tokenizers

    print("| documents | number | MB | Stemma MB/s | datatrove MB/s | × |\n|---|---|---|---|---|---|")
    corpora = {name: sample(texts, options.megabytes) for name, texts in real_texts(options.shared).items()}
    corpora["all"] = [text for texts in corpora.values() for text in texts]
    with mock.patch.object(word_tokenizers, "load_word_tokenizer", return_value=SameWords):
        for name, texts in corpora.items():
            size = size_of(texts)
            ours, theirs = (size / best_of(*run) for run in ((7, measuring(texts)), (2, judging(texts))))
            print(
                f"| {name} | {len(texts):,} | {size:.1f} | {ours:.1f} | {theirs:.2f} | {ours / theirs:.1f} |",
                flush=True,
            )


def measuring(texts: list[str]) -> Callable[[], None]:
    def work() -> None:
        for start in range(0, len(texts), BATCH):
            measure(texts[start : start + BATCH])

    return work


def judging(texts: list[str]) -> Callable[[], None]:
    from datatrove.data import Document
    from datatrove.pipeline import filters as available

    names = ("GopherQualityFilter", "GopherRepetitionFilter", "C4QualityFilter", "FineWebQualityFilter")
    judges = [getattr(available, name)() for name in names]

    def work() -> None:
        for text in texts:
            for judge in judges:
                judge.filter(Document(text=text, id=""))

    return work


# -- threshold ---------------------------------------------------------------------------------------------------


def threshold(options: argparse.Namespace) -> None:
    drop, flag = profile_rules("retrieval", ["en", "de"])
    drop_changed, flag_changed = profile_rules(
        "retrieval", ["en", "de"], thresholds={"gopher_mean_word_length_min": 4.5}
    )
    print("| documents | rules | decisions | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        with duckdb.connect(f"{folder}/metrics.duckdb", config={"threads": 1}) as connection:
            connection.register("generated", generated(options))
            connection.execute("CREATE TABLE documents AS FROM generated")
            connection.execute("CHECKPOINT")
            for label, rules in (("", [*drop, *flag]), (", one changed", [*drop_changed, *flag_changed])):
                query = f"CREATE OR REPLACE TABLE decisions AS {decisions_sql(rules, 'documents')}"
                seconds = best_of(3, lambda query=query: connection.execute(query))
                found = connection.execute("SELECT count(*) FROM decisions").fetchone()
                assert found is not None
                print(
                    f"| {options.documents:,} | {len(rules)}{label} | {found[0]:,} | {seconds:.2f} |",
                    flush=True,
                )


def generated(options: argparse.Namespace) -> pa.Table:
    """Draw documents from the metrics of the real ones, each ratio scaled by 0.8 to 1.2."""
    texts = [
        text for texts in real_texts(options.shared).values() for text in sample(texts, options.megabytes)
    ]
    known = measure(texts)
    random = np.random.default_rng(7)
    drawn = random.integers(0, len(texts), options.documents)
    columns = []
    for field in METRICS:
        values = known.field(field.name).to_numpy()[drawn]
        scale = random.uniform(0.8, 1.2, options.documents)
        columns.append(pa.array(values * scale if field.type == pa.float64() else values, field.type))
    scores = pa.StructArray.from_arrays(columns, fields=list(METRICS))
    keys = pa.array([random.bytes(16) for _ in range(options.documents)], pa.binary(16))
    return pa.table(
        {
            "document_id": pa.ExtensionArray.from_storage(pa.uuid(), keys),
            "scores": scores,
            "language": pa.array(random.choice(["en", "de", "fr"], options.documents, p=[0.7, 0.2, 0.1])),
            "language_score": pa.array(random.uniform(0.4, 1, options.documents)),
            "words": scores.field("words").cast(pa.int32()),
            "text_length": scores.field("characters"),
        }
    )


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {"filters": filters, "threshold": threshold}


def main() -> None:
    sections = dict(SECTIONS)
    if (ROOT / "benchmarks" / "cleaning_steps.py").exists():
        sections |= importlib.import_module("cleaning_steps").SECTIONS
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(sections)}; none: all")
    parser.add_argument(
        "--shared",
        type=Path,
        default=Path(os.environ.get("STEMMA_SHARED", ROOT.parent / "shared")),
        help="the shared corpora",
    )
    parser.add_argument("--megabytes", type=float, default=2, help="of each corpus")
    parser.add_argument("--documents", type=int, default=1_000_000, help="generated ones")
    options = parser.parse_args()
    unknown = set(options.sections) - sections.keys()
    if unknown:
        parser.error(f"unknown section {', '.join(sorted(unknown))} (of {', '.join(sections)})")
    for name in options.sections or sections:
        print(f"\n## {name}\n", flush=True)
        sections[name](options)


if __name__ == "__main__":
    main()

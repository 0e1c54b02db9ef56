"""The steps of cleaning on one core: repair, language, personal data, decontamination, beside other libraries.

    python benchmarks/cleaning_steps.py [repair] [language] [pii] [decontamination] [--shared ../shared]

Seconds are processor time, the best of three runs; MB are 10^6 bytes of UTF-8. Needs the shared corpora.
"""

import argparse
import gzip
import importlib
import json
import lzma
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stemma.cleaning.decontamination import build_index, find_contamination
from stemma.cleaning.language import identify, identify_all, known_languages
from stemma.cleaning.origins import line_origins
from stemma.cleaning.pii import PII_KINDS, find_pii
from stemma.cleaning.repair import repair as repair_text

ROOT = Path(__file__).resolve().parent.parent


# Corpora ------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, Any]]:
    opened = lzma.open if path.suffix == ".xz" else gzip.open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def sample_files(data: Path) -> list[str]:
    texts = []
    for path in sorted((data / "a1_sample_registry").rglob("*")):
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            if path.with_suffix("").suffix != ".parquet" and b"\0" not in content:
                texts.append(content.decode("utf-8", "ignore"))
    return texts


def declarations(data: Path) -> list[str]:
    """The whole translations of the UDHR, in all languages and scripts."""
    documents = defaultdict(list)
    for row in rows_of(data / "e1_udhr" / "udhr.jsonl.gz"):
        documents[row["id"].split("#")[0]].append(row["text"])
    return ["\n".join(paragraphs) for paragraphs in documents.values()]


def paragraphs(data: Path) -> list[str]:
    """XQuAD's paragraphs in twelve languages."""
    return [row["context"] for path in sorted((data / "d2_xquad").glob("*.gz")) for row in rows_of(path)]


def with_mojibake(texts: Sequence[str]) -> list[str]:
    """Let every second line of each text be read in a wrong encoding."""
    encodings = ("latin-1", "cp1252", "cp1251", "mac_roman")
    broken = []
    for number, text in enumerate(texts):
        lines = text.split("\n")
        lines[1::2] = [line.encode().decode(encodings[number % 4], "replace") for line in lines[1::2]]
        broken.append("\n".join(lines))
    return broken


def corpora(data: Path) -> dict[str, list[str]]:
    return {
        "sample files": sample_files(data),
        "PEPs": [row["text"] for row in rows_of(data / "a4_pep_events" / "base.jsonl.xz")],
        "licences": [row["text"] for row in rows_of(data / "b4_licence_clusters" / "docs.jsonl.gz")],
        "UDHR, 532 translations": declarations(data),
        "XQuAD, 12 languages": paragraphs(data),
    }


def size_of(texts: Sequence[str]) -> float:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6


def seconds_of(work: Callable[[], Any], runs: int = 3) -> float:
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def speed(texts: Sequence[str], work: Callable[[], Any], runs: int = 3) -> str:
    return f"{size_of(texts) / seconds_of(work, runs):.1f}"


def print_row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_head(*cells: str) -> None:
    print_row(*cells)
    print_row(*("---" for _ in cells))


# Sections -----------------------------------------------------------------------------------------


def repair(options: argparse.Namespace) -> None:
    """Repair, beside ftfy on every line with the same settings, and the map from its result to the source."""
    from stemma.cleaning.repair import _fix_line

    data = options.shared / "data"
    texts = corpora(data)
    texts["UDHR, half of it mojibake"] = with_mojibake(texts["UDHR, 532 translations"][::3])
    texts["all of these"] = [text for corpus in texts.values() for text in corpus]
    print_head("corpus", "MB", "repair MB/s", "ftfy on every line MB/s", "origins MB/s", "changed")
    for name, corpus in texts.items():
        repaired = [repair_text(text) for text in corpus]
        pairs = list(zip(corpus, (result.text for result in repaired), strict=True))
        some = corpus[:: max(1, int(size_of(corpus)))]  # about a megabyte
        print_row(
            name,
            f"{size_of(corpus):.1f}",
            speed(corpus, lambda corpus=corpus: [repair_text(text) for text in corpus]),
            speed(some, lambda some=some: [_fix_line(line) for text in some for line in text.split("\n")], 1),
            speed(corpus, lambda pairs=pairs: [line_origins(*pair) for pair in pairs]),
            sum(result.changed for result in repaired),
        )


# The tags of the UDHR that name a variety and still are a language in (one of) its usual scripts.
USUAL = {"az-Latn", "bs-Latn", "de-1901", "de-1996", "el-monoton", "el-polyton", "fa-AF", "ha-NE", "ha-NG"}
USUAL |= {
    "mn-Cyrl",
    "pt-BR",
    "pt-PT",
    "sr-Cyrl",
    "sr-Latn",
    "tk-Latn",
    "ug-Arab",
    "uz-Cyrl",
    "uz-Latn",
    "zh-Hant",
}
SAME = {"nb": "no"}

Answer = Callable[[str], str | None]


def language(options: argparse.Namespace) -> None:
    """Languages of the UDHR: macro accuracy of whole translations, of paragraphs, and of 60 characters.

    The languages are those that CLD2 and py3langid both know and the UDHR is translated to, in their usual
    scripts (a tag without a script, region or variant, or one of USUAL). Every translation counts, also those
    in dialects under a language's tag. An answer is right if its primary subtag is.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    answers: dict[str, Answer] = {
        "Stemma": lambda text: identify(text)[0],
        "pycld2 alone": raw_cld2,
        "py3langid alone": lambda text: model.classify(text)[0],
    }
    both = {primary(code) for code in known_languages()} & set(model.labels)
    rows = rows_of(options.shared / "data" / "e1_udhr" / "udhr.jsonl.gz")
    rows = [row for row in rows if "-" not in row["bcp47"] or row["bcp47"] in USUAL]
    rows = [{**row, "text": repair_text(row["text"]).text} for row in rows if primary(row["bcp47"]) in both]
    whole: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        whole[row["bcp47"], row["id"].split("#")[0]].append(row["text"])
    units = {
        "translations": [(code, "\n".join(texts)) for (code, _), texts in whole.items()],
        "paragraphs": [(row["bcp47"], row["text"]) for row in rows],
        "60 characters": [(row["bcp47"], row["text"][:60].rsplit(" ", 1)[0]) for row in rows],
    }
    print(f"{len({primary(row['bcp47']) for row in rows})} languages\n")
    print_head("texts", "number", *(f"{name}: accuracy, MB/s" for name in answers))
    for name, labelled in units.items():
        texts = [text for _, text in labelled]
        cells = [
            f"{macro_accuracy(labelled, answer):.4f}, "
            + speed(texts, lambda answer=answer, texts=texts: [answer(text) for text in texts])
            for answer in answers.values()
        ]
        print_row(name, len(labelled), *cells)
    print()
    print_head("corpus", "MB", "Stemma MB/s")
    for name, corpus in corpora(options.shared / "data").items():
        print_row(name, f"{size_of(corpus):.1f}", speed(corpus, lambda corpus=corpus: identify_all(corpus)))


def raw_cld2(text: str) -> str | None:
    """The first answer of CLD2, reliable or not."""
    import pycld2

    code = pycld2.detect(text, isPlainText=True)[2][0][1]
    return {"iw": "he", "jw": "jv", "blu": "hmn"}.get(code, code.lower())


def primary(code: str) -> str:
    return SAME.get(code, code).split("-")[0].lower()


def macro_accuracy(labelled: Sequence[tuple[str, str]], answer: Answer) -> float:
    right = defaultdict(list)
    for code, text in labelled:
        right[primary(code)].append(primary(answer(text) or "") == primary(code))
    return sum(sum(hits) / len(hits) for hits in right.values()) / len(right)


def pii(options: argparse.Namespace) -> None:
    """Personal data: a labelled set (made by the tests), and what real documents hold, by kind."""
    sys.path.insert(0, str(ROOT / "tests"))
    rows = importlib.import_module("test_pii").labelled(20_000, seed=1)
    planted, found, right = Counter(), Counter(), Counter()
    for text, kind, start, end in rows:
        planted[kind] += 1
        for span in find_pii(text, PII_KINDS):
            found[span.kind] += 1
            right[span.kind] += (span.start, span.end, span.kind) == (start, end, kind)
    print_head("kind", "planted", "recall", "precision")
    for kind in PII_KINDS:
        print_row(
            kind, planted[kind], f"{right[kind] / planted[kind]:.4f}", f"{right[kind] / found[kind]:.4f}"
        )
    print()
    print_head("corpus", "MB", *(f"{kind} MB/s (found)" for kind in PII_KINDS), "all MB/s")
    for name, corpus in corpora(options.shared / "data").items():
        counts = Counter(span.kind for text in corpus for span in find_pii(text, PII_KINDS))
        alone = [
            speed(corpus, lambda corpus=corpus, kind=kind: [find_pii(text, [kind]) for text in corpus])
            + f" ({counts[kind]})"
            for kind in PII_KINDS
        ]
        together = speed(corpus, lambda corpus=corpus: [find_pii(text, PII_KINDS) for text in corpus])
        print_row(name, f"{size_of(corpus):.1f}", *alone, together)


def decontamination(options: argparse.Namespace) -> None:
    """Real documents against XQuAD's paragraphs and questions in twelve languages, and with some planted."""
    data = options.shared / "data"
    rows = [row for path in sorted((data / "d2_xquad").glob("*.gz")) for row in rows_of(path)]
    contexts = [(f"{row['lang']} {row['doc_id']}", row["context"]) for row in rows]
    questions = [(question["id"], question["question"]) for row in rows for question in row["qas"]]
    started = time.process_time()
    index = build_index({"paragraphs": contexts, "questions": questions})
    ngrams = sum(len(grams.hashes) for grams in index.grams.values())
    print(f"{len(index.items):,} items, {ngrams:,} n-grams, built in {time.process_time() - started:.2f} s\n")
    texts = corpora(data)
    del texts["XQuAD, 12 languages"]
    licences = texts["licences"]
    english = [text for name, text in contexts if name.startswith("en ")]
    texts["licences, every tenth with a paragraph"] = [
        text if number % 10 else f"{text}\n\n{english[number // 10 % len(english)]}"
        for number, text in enumerate(licences)
    ]
    print_head("corpus", "MB", "documents", "MB/s", "documents with matches")
    for name, corpus in texts.items():
        matches = find_contamination(corpus, index)
        print_row(
            name,
            f"{size_of(corpus):.1f}",
            len(corpus),
            speed(corpus, lambda corpus=corpus: find_contamination(corpus, index)),
            sum(map(bool, matches)),
        )


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "repair": repair,
    "language": language,
    "pii": pii,
    "decontamination": decontamination,
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
    options = parser.parse_args()
    unknown = set(options.sections) - SECTIONS.keys()
    if unknown:
        parser.error(f"unknown section {', '.join(sorted(unknown))} (of {', '.join(SECTIONS)})")
    for name in options.sections or SECTIONS:
        print(f"\n## {name}\n", flush=True)
        SECTIONS[name](options)


if __name__ == "__main__":
    main()

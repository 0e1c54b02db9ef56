"""How well the main text of web pages is found, how much structure survives, and how fast.

    python benchmarks/extraction.py --shared ../shared [--wcxb DIR] [--folds DIR] [--every N]

Needs resiliparse and readability-lxml. Prints Markdown tables:

- Word-F1 (the words of both texts as bags, in lower case) by corpus and page type, and on c2 the share of the
  wanted snippets that are there and of the unwanted ones that are not.
- Structure: of the headings, list items, table rows and code blocks of the main content, the share that the
  output has in Markdown's form. An element counts as main content when its text stands in the true one.
- Pages and megabytes a second of processor time.

Stemma's model is trained on pages of which c4 is a part. So on c4 each page is read with the model of the
cross-validation that saw no page of its domain (`--folds`, made by train_blocks.py; without it c4 is left out
for the default profile). c1, c2, c3 and the benchmark's held-out pages (`--wcxb`) were never trained on.
"""

import argparse
import ast
import gzip
import json
import logging
import lzma
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from train_blocks import FOLDS, fold_of

from stemma.cleaning.extraction import block_model
from stemma.cleaning.extraction.html import _parse, extract_html
from stemma.cleaning.extraction.page_metadata import read_metadata
from stemma.cleaning.extraction.render import INLINE, to_markdown

WORD = re.compile(r"\w+")
_LEAST_WORDS = {"items": 3, "headings": 2, "rows": 3, "code": 3}


@dataclass
class Case:
    """A page and what is known of its main content."""

    corpus: str
    kind: str
    html: str
    truth: str | None = None
    domain: str = ""
    wanted: Sequence[str] = ()
    unwanted: Sequence[str] = ()
    title: str | None = None
    published: str | None = None
    author: str | None = None
    structure: dict[str, list[list[str]]] = field(default_factory=dict)


# --- the corpora --------------------------------------------------------------------------------------------


def read_gzip(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


def articles(folder: Path) -> Iterator[Case]:
    """c1: news articles, their text."""
    for name, truth in json.loads((folder / "ground-truth.json").read_text("utf-8")).items():
        yield Case("c1", "news", read_gzip(folder / "html" / f"{name}.html.gz"), truth["articleBody"])


def snippets(folder: Path) -> Iterator[Case]:
    """c2: pages in many languages, strings that must and that must not be there."""
    for truth in json.loads((folder / "evaldata.json").read_text("utf-8")).values():
        path = folder / "html" / f"{truth['file']}.gz"
        if path.exists():
            wanted, unwanted = (
                ast.literal_eval(v) if isinstance(v := truth[key], str) else v for key in ("with", "without")
            )
            yield Case(
                "c2", "snippets", read_gzip(path), wanted=wanted, unwanted=unwanted, title=truth.get("title"),
                published=truth.get("date"), author=truth.get("author"),
            )  # fmt: skip


def readable(folder: Path) -> Iterator[Case]:
    """c3: pages with the HTML of their article."""
    for path in sorted(folder.iterdir()):
        if (path / "source.html.gz").exists():
            said = json.loads(read_gzip(path / "expected-metadata.json.gz"))
            root = _parse(read_gzip(path / "expected.html.gz"))
            truth = to_markdown(root.find("body"))
            case = Case(
                "c3", "readability", read_gzip(path / "source.html.gz"), truth, title=said.get("title")
            )
            case.published, case.author = (said.get("publishedTime") or "")[:10], said.get("byline")
            yield case


def mixed(path: Path) -> Iterator[Case]:
    """c4: seven types of pages."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            page = json.loads(line)
            domain = urlparse(page["url"]).netloc.removeprefix("www.") or page["id"]
            yield Case(
                "c4", page["page_type"], page["html"], page["main_content"], domain, page["with"],
                page["without"], title=page["title"],
            )  # fmt: skip


def held_out(folder: Path) -> Iterator[Case]:
    """The 511 pages that c4's benchmark keeps for testing."""
    for path in sorted((folder / "ground-truth").glob("*.json")):
        page = json.loads(path.read_text("utf-8"))
        kind = ((page.get("_internal") or {}).get("page_type") or {}).get("primary", "article")
        truth = page["ground_truth"]
        yield Case(
            "held-out", "collection" if kind == "category" else kind,
            read_gzip(folder / "html" / f"{path.stem}.html.gz"), truth.get("main_content") or "",
            title=truth.get("title"), published=truth.get("publish_date"), author=truth.get("author"),
        )  # fmt: skip


# --- the systems --------------------------------------------------------------------------------------------


@dataclass
class System:
    """An extractor: its text for word-F1, and its Markdown (the same text where it has no other)."""

    name: str
    text: Callable[[str], str]
    markdown: Callable[[str], str] | None = None


def systems() -> list[System]:
    import trafilatura
    from readability import Document
    from resiliparse.extract.html2text import extract_plain_text

    logging.disable(logging.CRITICAL)

    def with_trafilatura(fast: bool, form: str) -> Callable[[str], str]:
        return lambda page: (
            trafilatura.extract(page, fast=fast, output_format=form, include_tables=True) or ""
        )

    def with_readability(page: str) -> str:
        root = _parse(Document(page).summary())
        body = None if root is None else root.find("body")
        return "" if body is None else to_markdown(body)

    return [
        System("Stemma, default", lambda page: extract_html(page).text),
        System("Stemma, fast", lambda page: extract_html(page, profile="fast").text),
        System("trafilatura", with_trafilatura(False, "txt"), with_trafilatura(False, "markdown")),
        System("trafilatura, fast", with_trafilatura(True, "txt"), with_trafilatura(True, "markdown")),
        System("resiliparse", lambda page: extract_plain_text(page, main_content=True, alt_texts=False)),
        System("readability-lxml", with_readability),
    ]


# --- the scores ---------------------------------------------------------------------------------------------


def word_f1(text: str, truth: str) -> float:
    found, wanted = (Counter(WORD.findall(part.lower())) for part in (text, truth))
    if not wanted:
        return float(not found)
    return 2 * (found & wanted).total() / (found.total() + wanted.total())


def squeezed(text: str) -> str:
    return " ".join(WORD.findall(text.lower()))


def own_text(element) -> str:
    """The element's words, without those of lists inside of it."""
    parts = []
    for inner in element.iter():
        within = inner is not element and any(up.tag in ("ul", "ol") for up in _up_to(inner, element))
        if not within:
            parts += [inner.text or "", " " if inner.tag not in INLINE else ""]
        if inner is not element and not any(
            up.tag in ("ul", "ol") for up in _up_to(inner.getparent(), element)
        ):
            parts.append(inner.tail or "")
    return squeezed("".join(parts))


def _up_to(element, top) -> Iterator:
    while element is not None and element is not top:
        yield element
        element = element.getparent()


def structure_of(page: str, truth: str) -> dict[str, list[list[str]]]:
    """The page's headings, items, rows and code whose text stands in the truth, as lists of words."""
    root = _parse(page.replace("\x00", ""))
    body = None if root is None else root.find("body")
    found: dict[str, list[list[str]]] = {key: [] for key in _LEAST_WORDS}
    if body is None:
        return found
    text = f" {squeezed(truth)} "
    for element in body.iter("h2", "h3", "h4", "h5", "h6", "li", "tr", "pre"):
        kind = {"li": "items", "tr": "rows", "pre": "code"}.get(element.tag, "headings")
        if kind == "rows" and (len(element) < 2 or next(element.iter("table", "ul", "ol"), None) is not None):
            continue
        parts = [squeezed(" ".join(cell.itertext())) for cell in element] if kind == "rows" else []
        words = " ".join(part for part in parts if part) if kind == "rows" else own_text(element)
        if len(words.split()) >= _LEAST_WORDS[kind] and f" {words} " in text:
            found[kind].append(parts or [words])
    return found


def survivors(markdown: str, structure: dict[str, list[list[str]]]) -> dict[str, tuple[int, int]]:
    """How many of a kind are there in Markdown's form, and how many there should be."""
    lines = markdown.split("\n")
    headings = {squeezed(line) for line in lines if line.startswith("#")}
    items = Counter(
        squeezed(re.sub(r"^\s*(?:[-*+•]|\d+[.)])\s+", "", line)) for line in lines if _is_item(line)
    )
    rows = {tuple(filter(None, map(squeezed, re.split(r"(?<!\\)\|", line)))) for line in lines if "|" in line}
    code = [
        squeezed(block) for block in re.findall(r"^```.*?\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE)
    ]
    right = {
        "headings": lambda parts: parts[0] in headings,
        "items": lambda parts: any(
            item and (parts[0].startswith(item) or item.startswith(parts[0])) for item in items
        ),
        "rows": lambda parts: tuple(filter(None, parts)) in rows,
        "code": lambda parts: any(parts[0] in block for block in code),
    }
    return {kind: (sum(map(right[kind], parts)), len(parts)) for kind, parts in structure.items()}


def _is_item(line: str) -> bool:
    return re.match(r"\s*(?:[-*+•]|\d+[.)])\s", line) is not None


# --- the run ------------------------------------------------------------------------------------------------


@dataclass
class Scores:
    f1: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    snippets: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    structure: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    seconds: float = 0.0
    pages: int = 0
    characters: int = 0


def run(system: System, cases: Sequence[Case], folds: list) -> Scores:
    scores = Scores()
    shipped = block_model.load_model
    for case in cases:
        if system.name == "Stemma, default" and case.corpus == "c4":
            if not folds:
                continue
            block_model.load_model = lambda case=case: folds[fold_of(case.domain)]
        text = timed(system, case, scores)
        markdown = system.markdown(case.html) if system.markdown else text
        block_model.load_model = shipped
        if case.truth is not None:
            scores.f1[case.corpus, case.kind].append(word_f1(text, case.truth))
            for kind, (right, all_) in survivors(markdown, case.structure).items():
                scores.structure[case.corpus, kind][0] += right
                scores.structure[case.corpus, kind][1] += all_
        if case.corpus == "c2":
            flat = squeezed(text)
            scores.snippets["wanted"] += [float(squeezed(part) in flat) for part in case.wanted]
            scores.snippets["unwanted"] += [float(squeezed(part) not in flat) for part in case.unwanted]
    return scores


def timed(system: System, case: Case, scores: Scores) -> str:
    start = time.process_time()
    try:
        text = system.text(case.html)
    except Exception as error:
        print(f"<!-- {system.name} fails on a page of {case.corpus}: {type(error).__name__} -->")
        text = ""
    scores.seconds += time.process_time() - start
    scores.pages += 1
    scores.characters += len(case.html)
    return text


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n")
    for row in (heads, ["---", *["---:"] * (len(heads) - 1)], *rows):
        print(f"| {' | '.join(row)} |")


def print_f1(results: dict[str, Scores]) -> None:
    keys = sorted({key for scores in results.values() for key in scores.f1})
    corpora = sorted({corpus for corpus, _ in keys})
    rows = []
    for corpus in corpora:
        kinds = [key for key in keys if key[0] == corpus]
        for key in kinds:
            cells = [f"{mean(scores.f1[key]):.3f}" if scores.f1[key] else "" for scores in results.values()]
            rows.append([f"{corpus} {key[1]} ({max(len(s.f1[key]) for s in results.values())})", *cells])
        if len(kinds) > 1:
            means = [[mean(s.f1[key]) for key in kinds] for s in results.values()]
            rows.append([f"**{corpus}, mean of types**", *[f"**{mean(m):.3f}**" for m in means]])
            all_ = [[score for key in kinds for score in s.f1[key]] for s in results.values()]
            rows.append([f"**{corpus}, mean of pages**", *[f"**{mean(a):.3f}**" for a in all_]])
    for kind in ("wanted", "unwanted"):
        name = f"c2 snippets, {kind} ones {'there' if kind == 'wanted' else 'not there'}"
        rows.append([name, *[f"{mean(scores.snippets[kind]):.3f}" for scores in results.values()]])
    table("Word-F1", ["pages", *results], rows)


def print_structure(results: dict[str, Scores]) -> None:
    keys = sorted({key for scores in results.values() for key in scores.structure})
    rows = []
    for key in keys:
        counts = [scores.structure[key] for scores in results.values()]
        cells = [f"{right / all_:.3f}" if all_ else "" for right, all_ in counts]
        rows.append([f"{key[0]} {key[1]} ({max(all_ for _, all_ in counts)})", *cells])
    table("Structure that survives as Markdown", ["elements", *results], rows)


def print_speed(results: dict[str, Scores]) -> None:
    rows = [
        [name, f"{s.pages / s.seconds:.0f}", f"{s.characters / s.seconds / 1e6:.1f}"]
        for name, s in results.items()
    ]
    table("Speed, one core", ["system", "pages/s", "MB/s"], rows)


def print_metadata(cases: Sequence[Case]) -> None:
    rows = []
    for corpus in ("c2", "c3", "c4", "held-out"):
        counts: dict[str, list[bool]] = {"title": [], "published": [], "author": []}
        for case in cases:
            root = _parse(case.html.replace("\x00", "")) if case.corpus == corpus else None
            if root is None:
                continue
            said = read_metadata(root)
            for key, truth in (("title", case.title), ("author", case.author)):
                if truth:
                    counts[key].append(squeezed(truth) == squeezed(getattr(said, key) or ""))
            if case.published:
                counts["published"].append(case.published == str(said.published))
        cells = [f"{mean(values):.3f} ({len(values)})" if values else "" for values in counts.values()]
        if any(cells):
            rows.append([corpus, *cells])
    table("Metadata, share exactly right", ["pages", "title", "published", "author"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--wcxb", type=Path, help="a clone of the benchmark, for its held-out pages")
    parser.add_argument("--folds", type=Path, help="the cross-validation's models (train_blocks.py --folds)")
    parser.add_argument("--every", type=int, default=1, help="read one page of so many")
    parser.add_argument("--only", help="systems whose name begins so")
    arguments = parser.parse_args()
    data = arguments.shared / "data"
    cases = [
        *articles(data / "c1_article_extraction"),
        *snippets(data / "c2_trafilatura_eval"),
        *readable(data / "c3_readability"),
        *mixed(data / "c4_wcxb" / "pages.jsonl.xz"),
    ]
    if arguments.wcxb:
        cases += held_out(arguments.wcxb / "test")
    cases = cases[:: arguments.every]
    for case in cases:
        if case.truth is not None:
            case.structure = structure_of(case.html, case.truth)
    folds = []
    if arguments.folds:
        paths = [arguments.folds / f"fold_{fold}.json" for fold in range(FOLDS)]
        folds = [block_model.parse_model(json.loads(path.read_text("utf-8"))) for path in paths]
    chosen = [system for system in systems() if system.name.startswith(arguments.only or "")]
    results = {system.name: run(system, cases, folds) for system in chosen}
    print_f1(results)
    print_structure(results)
    print_speed(results)
    print_metadata(cases)


if __name__ == "__main__":
    main()

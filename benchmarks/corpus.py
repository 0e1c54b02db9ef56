"""Real documents for the benchmarks, as files in a folder: the same where packages and Python are the same.

    python benchmarks/corpus.py --out DIR --docs 10000              what a Debian machine carries
    python benchmarks/corpus.py --out DIR --git REPO --match '[.]md$'   what a git repository holds
    python benchmarks/corpus.py --out DIR --mutate changed          one scenario on a folder

It needs the standard library only and no network. The last line printed is a JSON object with the counts and
the SHA-256 of names and contents: two people with the same number have the same documents.
"""

import argparse
import ast
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

# A shorter text is a stub (a `.so` line of a manual page, an empty changelog entry); the few longer ones
# would decide the whole timing.
MINIMUM_BYTES = 200
MAXIMUM_BYTES = 200_000
DOC = Path("/usr/share/doc")


@dataclass(frozen=True)
class Document:
    """One text, the kind of source it comes from, and a readable name that several texts may share."""

    kind: str
    name: str
    text: str

    @cached_property
    def content_hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def path(self) -> PurePosixPath:
        """Where the document lies in the folder; the hash keeps equal names apart."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.name).strip("-")[:60].lower() or "document"
        suffix = ".md" if self.name.endswith(".md") else ".txt"
        return PurePosixPath(self.kind, self.content_hash[:1], f"{slug}-{self.content_hash[:8]}{suffix}")


def read_text(path: Path) -> str:
    """The text of a plain or gzipped file, or "" where it can't be read or isn't UTF-8."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return content.decode()
    except (OSError, EOFError, ValueError):
        return ""


# --- what a Debian machine carries -------------------------------------------------------------------------


def licences() -> Iterator[Document]:
    for path in DOC.glob("*/copyright"):
        yield Document("licences", path.parent.name, read_text(path))


def release_notes() -> Iterator[Document]:
    """One document a release where the changelog has Debian's form, one a file where it hasn't."""
    for path in [*DOC.glob("*/[Cc][Hh][Aa][Nn][Gg][Ee]*"), *DOC.glob("*/NEWS*")]:
        for entry in re.split(r"\n(?=\S+ \([^)\n]+\) )", read_text(path)):
            release = re.match(r"\S+ \([^)\n]+\)", entry)
            yield Document(
                "release-notes", release[0] if release else f"{path.parent.name}-{path.stem}", entry
            )


def documentation() -> Iterator[Document]:
    wanted = re.compile(r"(README|TODO|FAQ|HOWTO|AUTHORS|THANKS|RelNotes/|\.(txt|md|rst)(\.gz)?$)")
    for path in DOC.rglob("*"):
        if wanted.search(str(path)) and not path.name.endswith((".html", ".html.gz")) and path.is_file():
            yield Document("documentation", path.relative_to(DOC).as_posix(), read_text(path))


def python_documentation() -> Iterator[Document]:
    """The docstrings of each module of the standard library, in the order of the source."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in library.rglob("*.py"):
        module = path.relative_to(library)
        if not {"site-packages", "dist-packages"} & set(module.parts):
            yield Document("python", ".".join(module.with_suffix("").parts), docstrings(read_text(path)))


def docstrings(source: str) -> str:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return "\n\n".join(f"{getattr(node, 'name', '')}\n{ast.get_docstring(node)}".strip() for node in nodes)


def manual_pages() -> Iterator[Document]:
    for path in Path("/usr/share/man").glob("man[1-9]*/*"):
        yield Document("manual", path.name.removesuffix(".gz"), without_roff(read_text(path)))


ROFF_HEADINGS = {"SH", "SS", "Sh", "Ss"}
ROFF_PARAGRAPHS = {"PP", "P", "LP", "TP", "IP", "HP", "Pp", "It"}
ROFF_TEXT = {
    "B",
    "I",
    "BR",
    "RB",
    "BI",
    "IB",
    "IR",
    "RI",
    "SM",
    "SB",
    "CW",
    "Nm",
    "Nd",
    "Op",
    "Fl",
    "Ar",
    "Xr",
}
ROFF_TEXT |= {
    "Pa",
    "Dv",
    "Ev",
    "Cm",
    "Dq",
    "Sq",
    "Ql",
    "Li",
    "Em",
    "Sy",
    "Fn",
    "Ft",
    "Fa",
    "Vt",
    "Er",
    "Va",
    "Pq",
}
ROFF_CHARACTERS = {"aq": "'", "cq": "’", "oq": "‘", "lq": "“", "rq": "”", "em": "—", "en": "–", "bu": "•"}


def without_roff(page: str) -> str:
    """A manual page's words: requests become headings and paragraphs, or go."""
    page = re.sub(r"^\.de\b.*?^\.\.$", "", page, flags=re.MULTILINE | re.DOTALL)
    lines = []
    for line in page.splitlines():
        if line[:1] not in (".", "'"):
            lines.append(line)
            continue
        request, _, arguments = line[1:].strip().partition(" ")
        arguments = arguments.replace('"', "")
        if request in ROFF_HEADINGS:
            lines += ["", arguments, ""]
        elif request in ROFF_PARAGRAPHS:
            lines += [
                "",
                re.sub(r"\s*\b[\d.]+[a-z]?$", "", arguments),
            ]  # the last one is often an indentation
        elif request in ROFF_TEXT:
            lines.append(arguments)
    text = "\n".join(lines)
    text = re.sub(r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[-+]?\d+|\\[&|^%/,:]|\\\*(?:\(..|\[[^\]]*\]|.)", "", text)
    text = re.sub(r"\\\((..)|\\\[(..)\]", lambda m: ROFF_CHARACTERS.get(m[1] or m[2], ""), text)
    text = text.replace("\\-", "-").replace("\\ ", " ").replace("\\e", "\\")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def package_descriptions() -> Iterator[Document]:
    status = read_text(Path("/var/lib/dpkg/status"))
    for package in re.finditer(
        r"^Package: (\S+)\n(?:.+\n)*?Description: (.*(?:\n .*)*)", status, re.MULTILINE
    ):
        yield Document("packages", package[1], re.sub(r"\n \.?", "\n", package[2]))


# Shares of the whole. The others make up for a kind that falls short (a container without manual pages).
DEBIAN: dict[Callable[[], Iterator[Document]], float] = {
    manual_pages: 0.42,
    release_notes: 0.34,
    documentation: 0.07,
    python_documentation: 0.07,
    licences: 0.05,
    package_descriptions: 0.05,
}


def debian_documents(docs: int) -> list[Document]:
    """`docs` documents of this machine. Within a kind those with the smallest content hashes are taken, so
    that two machines with nearly the same packages have nearly the same documents."""
    seen: set[str] = set()
    chosen: list[Document] = []
    left_over: list[Document] = []
    for source, share in DEBIAN.items():
        ranked = sorted(usable(source(), seen), key=lambda document: document.content_hash)
        quota = round(docs * share)
        chosen += ranked[:quota]
        left_over += ranked[quota:]
    left_over.sort(key=lambda document: document.content_hash)
    return (chosen + left_over)[:docs]


def usable(documents: Iterable[Document], seen: set[str]) -> Iterator[Document]:
    """The documents of a fair length whose content hash is not in `seen`, which grows with them. Of several
    with one content the first by name is kept."""
    for document in sorted(documents, key=lambda document: document.name):
        fair = MINIMUM_BYTES <= len(document.text.encode()) <= MAXIMUM_BYTES and "\0" not in document.text
        if fair and document.content_hash not in seen:
            seen.add(document.content_hash)
            yield document


# --- what a git repository holds ---------------------------------------------------------------------------


def git_documents(repository: Path, match: str, docs: int) -> list[Document]:
    """The files at HEAD whose path matches; where they are fewer than `docs`, their older versions too, the
    newest first."""
    seen: set[str] = set()
    head = [(path, blob) for path, blob in blobs_at_head(repository) if re.search(match, path)]
    documents = sorted(usable(read_blobs(repository, head), seen), key=lambda document: document.content_hash)
    if len(documents) < docs:
        past = [(path, blob) for path, blob in blobs_of_history(repository) if re.search(match, path)]
        for document in read_blobs(repository, past):
            documents += usable([document], seen)
            if len(documents) >= docs:
                break
    return documents[:docs]


def blobs_at_head(repository: Path) -> Iterator[tuple[str, str]]:
    listing = git(repository, "ls-tree", "-r", "-z", "--format=%(objecttype) %(objectname) %(path)", "HEAD")
    for entry in listing.split("\0"):
        kind, _, rest = entry.partition(" ")
        if kind == "blob":
            blob, _, path = rest.partition(" ")
            yield path, blob


def blobs_of_history(repository: Path) -> Iterator[tuple[str, str]]:
    log = git(repository, "log", "--raw", "--no-abbrev", "--no-renames", "--format=", "HEAD")
    for line in log.splitlines():
        change, _, path = line.partition("\t")
        blob = change.split(" ")[3]
        if blob.strip("0"):
            yield path, blob


def read_blobs(repository: Path, blobs: Iterable[tuple[str, str]]) -> Iterator[Document]:
    command = ["git", "-C", str(repository), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for path, blob in blobs:
            process.stdin.write(f"{blob}\n".encode())
            process.stdin.flush()
            header = process.stdout.readline().split()
            if len(header) != 3:  # a partial clone lacks the blob
                continue
            content = process.stdout.read(int(header[2]) + 1)[:-1]
            try:
                yield Document("git", path, content.decode())
            except UnicodeDecodeError:
                continue
        process.stdin.close()


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout.decode(errors="replace")


# --- the folder --------------------------------------------------------------------------------------------


def build(
    out: Path, docs: int, repository: Path | None = None, match: str = r"\.(md|rst|txt)$"
) -> dict[str, object]:
    """Write `docs` documents below `out`, which must not exist or be empty, and describe them.

    Raises FileExistsError where `out` holds something, LookupError where there are not enough documents.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty")
    documents = git_documents(repository, match, docs) if repository else debian_documents(docs)
    if len(documents) < docs:
        raise LookupError(
            f"only {len(documents)} of {docs} documents found; try --git REPOSITORY --match REGEX"
        )
    for document in documents:
        path = out / document.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document.text.encode())
    return describe(out)


def describe(folder: Path) -> dict[str, object]:
    """Number and size of the documents by kind, and one SHA-256 of all names and contents, sorted by name."""
    digest = hashlib.sha256()
    sizes: dict[str, list[int]] = {}
    for name in list_documents(folder):
        content = (folder / name).read_bytes()
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        sizes.setdefault(name.split("/")[0], []).append(len(content))
    documents, size = sum(map(len, sizes.values())), sum(map(sum, sizes.values()))
    return {
        "documents": documents,
        "bytes": size,
        "mean_bytes": size // max(1, documents),
        "kinds": {kind: {"documents": len(of), "bytes": sum(of)} for kind, of in sorted(sizes.items())},
        "sha256": digest.hexdigest(),
    }


def list_documents(folder: Path) -> list[str]:
    """The documents' paths relative to the folder, sorted by code point."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- scenarios ---------------------------------------------------------------------------------------------


def mutate(folder: Path, scenario: str, fraction: float = 0.01, seed: int = 1) -> list[str]:
    """Change the folder as `scenario` says and return the relative paths of the documents touched.

    "changed": a sentence that no other document has, in the middle of `fraction` of the documents; "added":
    that many new documents, of sentences drawn one by one from the whole folder, so that no old document is
    nearly the same; "deleted"; "renamed": moved to another folder, content and time untouched (the new paths
    are returned). The outcome depends on the folder's names and contents, the fraction and the seed alone.
    Raises KeyError for an unknown scenario.
    """
    act = SCENARIOS[scenario]
    names = list_documents(folder)
    count = max(1, round(len(names) * fraction))
    chosen = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{scenario}/{name}".encode()).digest())[
        :count
    ]
    return [act(folder, name, seed, names) for name in chosen]


def change(folder: Path, name: str, seed: int, names: list[str]) -> str:
    path = folder / name
    text = path.read_bytes().decode()
    space = re.compile(r"(?<=[.!?])\s|\n|$").search(text, len(text) // 2)
    middle = space.start() if space else len(text)
    mark = hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:12]
    sentence = f" In revision {seed} somebody added this sentence, which no other document has: {mark}."
    path.write_bytes((text[:middle] + sentence + text[middle:]).encode())
    return name


def add(folder: Path, name: str, seed: int, names: list[str]) -> str:
    """A new document about as long as the one called `name`, but no longer than 8,000 characters."""
    drawn = random.Random(f"{seed}/{name}")
    wanted = min(8_000, (folder / name).stat().st_size)
    sentences: list[str] = []
    while sum(map(len, sentences)) < wanted:
        text = " ".join((folder / drawn.choice(names)).read_bytes().decode().split())
        candidates = [s for s in re.split(r"(?<=[.!?]) ", text) if 40 <= len(s) <= 400] or [text[:200]]
        sentences.append(drawn.choice(candidates))
    added = PurePosixPath("added", str(seed), PurePosixPath(name).name)
    (folder / added).parent.mkdir(parents=True, exist_ok=True)
    (folder / added).write_bytes((" ".join(sentences) + "\n").encode())
    return added.as_posix()


def delete(folder: Path, name: str, seed: int, names: list[str]) -> str:
    (folder / name).unlink()
    return name


def rename(folder: Path, name: str, seed: int, names: list[str]) -> str:
    renamed = PurePosixPath("renamed", str(seed), name)
    (folder / renamed).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).rename(folder / renamed)
    return renamed.as_posix()


SCENARIOS = {"changed": change, "added": add, "deleted": delete, "renamed": rename}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder")
    parser.add_argument("--docs", type=int, default=10_000)
    parser.add_argument("--git", type=Path, metavar="REPOSITORY", help="take the documents from git instead")
    parser.add_argument(
        "--match", default=r"\.(md|rst|txt)$", metavar="REGEX", help="paths in the repository"
    )
    parser.add_argument("--mutate", choices=SCENARIOS, help="change an existing folder instead of making one")
    parser.add_argument("--fraction", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        if arguments.mutate:
            touched = mutate(arguments.out, arguments.mutate, arguments.fraction, arguments.seed)
            summary = {"scenario": arguments.mutate, "touched": len(touched), **describe(arguments.out)}
        else:
            summary = build(arguments.out, arguments.docs, arguments.git, arguments.match)
    except (OSError, LookupError, subprocess.CalledProcessError) as error:
        print(f"corpus.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line: words, options and exit codes. What each word does is in stemma/commands/."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from stemma import __version__
from stemma.errors import StemmaError

Words = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns

EXIT_CODES = "exit codes: 0 done, 1 the run or a blocking check failed, 2 wrong use"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    words = parser()
    for word in given:
        if not _is_utf8(word):
            words.error(f"an argument is not UTF-8: {word!a}")
    options = words.parse_args(given)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except StemmaError as error:
        if options.debug:
            traceback.print_exc()
        print(f"stemma: {_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stemma: interrupted; the next run carries on", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output went away (stemma sql … | head): nothing more to say to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        print(f"stemma: {type(error).__name__}: {_one_line(error)}{_advice(error)}", file=sys.stderr)
        return 1


def _advice(error: Exception) -> str:
    """Return what to do about an error that no command has words for."""
    from stemma.resources.faults import is_damage

    if is_damage(error):
        return "; the file is damaged: move it away, and 'stemma run' makes it anew"
    return " (--debug shows where)"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"stemma: {message} ('{self.prog} --help' shows what there is)\n")


def _is_utf8(word: str) -> bool:
    """Tell whether an argument is text: other bytes come as lone surrogates, which no query and no file can hold."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split())
    # A message may name a file, or quote a document.
    return "".join(each if each.isprintable() else "�" for each in line)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; docs/cli.md is tested against it."""
    top = _Parser(
        prog="stemma",
        description="Piles of documents into a corpus for retrieval or training: incremental, with lineage.",
        epilog=EXIT_CODES,
    )
    top.add_argument("--version", action="version", version=f"stemma {__version__}")
    words = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _run(words)
    _status(words)
    _sql(words)
    _diff(words)
    _search(words)
    _chunk_eval(words)
    _export(words)
    _trace(words)
    _why(words)
    _topics(words)
    _report(words)
    _families(words)
    _lookup(words)
    _select(words)
    _verify(words)
    _purge(words)
    _compact(words)
    _ui(words)
    return top


def _word(words: Words, name: str, summary: str, *, epilog: str | None = None) -> argparse.ArgumentParser:
    word: argparse.ArgumentParser = words.add_parser(name, help=summary, description=summary, epilog=epilog)
    word.add_argument(
        "--config", type=Path, metavar="FILE", help="stemma.toml (default: STEMMA_CONFIG, then ./stemma.toml)"
    )
    word.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return word


def _at_least(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that is a whole number in a range."""

    def whole_number(text: str) -> int:
        value = int(text)
        if value < lowest or (highest is not None and value > highest):
            limits = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"
            raise argparse.ArgumentTypeError(f"must be {limits}, not {value}")
        return value

    return whole_number


def _share(text: str) -> float:
    """The type of an option that is a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return value


def _run(words: Words) -> None:
    word = _word(
        words, "run", "Bring the corpus up to date with the sources, through Dagster.", epilog=EXIT_CODES
    )
    word.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="files, folders, globs or URLs instead of the configured sources",
    )
    word.add_argument(
        "--select", metavar="DATASETS", help="only these datasets, comma-separated (raw,cleaned,…)"
    )
    word.add_argument(
        "--days",
        metavar="DAY[..DAY]",
        help="take in only what changed on these days (2026-01-31, or first..last); the rest waits",
    )
    word.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME",
        help="read only this source (again for more); the documents of others stay as they are",
    )
    word.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value of a key of stemma.toml for this run, such as deduplicate.threshold=0.9",
    )
    word.add_argument(
        "--dry-run", action="store_true", help="only print how many rows each stage would compute"
    )
    word.add_argument(
        "--allow-deletes",
        action="store_true",
        help="let more of a source vanish than max(5, 10 %%) of its documents",
    )
    word.add_argument("--json", action="store_true", help="print the summary as JSON")
    word.add_argument("--quiet", action="store_true", help="no progress bars")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.run import run

        return run(options)

    word.set_defaults(command=command)


def _status(words: Words) -> None:
    word = _word(words, "status", "Show what the corpus holds, its last run and its size on disk.")
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.status import status

        return status(options)

    word.set_defaults(command=command)


def _sql(words: Words) -> None:
    word = _word(
        words,
        "sql",
        "Query the published corpus, read-only.",
        epilog="Tables: corpus.* and lineage.*, see docs/contract.md",
    )
    word.add_argument("query", help="one SQL statement; - reads it from standard input")
    word.add_argument(
        "--format", choices=["table", "csv", "json", "parquet"], default="table", help="form of the output"
    )
    word.add_argument(
        "--limit",
        type=_at_least(0),
        default=None,
        metavar="N",
        help="stop after N rows (tables show 100 by default)",
    )
    word.add_argument(
        "--as-of",
        metavar="RUN",
        help="what was published when a run had ended: its id or the beginning of it, or -1 for the last but one",
    )

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.sql import sql

        return sql(options)

    word.set_defaults(command=command)


def _diff(words: Words) -> None:
    word = _word(words, "diff", "What changed between two runs: rows, decisions, and a document's text.")
    word.add_argument(
        "run",
        metavar="RUN",
        help="a run: its id or the beginning of it, or -1 for the last publication but one",
    )
    word.add_argument(
        "other",
        nargs="?",
        default="latest",
        metavar="RUN",
        help="another (default latest: what is published now)",
    )
    word.add_argument(
        "--document", metavar="PATH_OR_ID", help="show what differs in the cleaned text of a file's documents"
    )
    word.add_argument(
        "--limit",
        type=_at_least(0),
        default=None,
        metavar="N",
        help="list N documents (default 20; with --json all)",
    )
    word.add_argument(
        "--color",
        choices=["auto", "always", "never"],
        default="auto",
        help="differences in colours (default auto: on a terminal, unless NO_COLOR is set)",
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.diff import diff

        return diff(options)

    word.set_defaults(command=command)


def _search(words: Words) -> None:
    word = _word(words, "search", "Find the chunks that answer a text best, by meaning and by words.")
    word.add_argument("text", help="what to look for")
    word.add_argument("-k", type=_at_least(1), default=5, metavar="N", help="how many chunks (default 5)")
    word.add_argument(
        "--mode",
        choices=["hybrid", "vector", "text"],
        default="hybrid",
        help="rank by vectors, by words (BM25), or by both (default hybrid)",
    )
    word.add_argument(
        "--where", metavar="SQL", help="only chunks that meet a condition over the columns of search.chunks"
    )
    word.add_argument(
        "--context",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="show N characters of the document before and after each chunk",
    )
    word.add_argument(
        "--exact", action="store_true", help="look at each chunk even where there is an approximate index"
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.search import search

        return search(options)

    word.set_defaults(command=command)


def _chunk_eval(words: Words) -> None:
    word = _word(words, "chunk-eval", "Compare strategies and sizes of chunks on the published corpus.")
    word.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="questions with their answers, as JSON lines (see docs/cli.md)",
    )
    word.add_argument(
        "--cloze",
        type=_at_least(1),
        metavar="N",
        help="N questions made of the corpus: a sentence asks for the rest of its paragraph",
    )
    word.add_argument(
        "--strategies",
        metavar="NAMES",
        help="comma-separated (default structure,semantic,recursive,fixed); also module:function",
    )
    word.add_argument(
        "--sizes",
        metavar="SIZES",
        help="comma-separated, MAXIMUM or TARGET/MAXIMUM tokens (default 64/128,96/160,128/200)",
    )
    word.add_argument(
        "-k",
        "--k",
        type=_at_least(1),
        default=5,
        metavar="N",
        help="chunks retrieved for a question (default 5)",
    )
    word.add_argument("--model", metavar="NAME", help="embedding model (default: that of stemma.toml)")
    word.add_argument(
        "--documents",
        type=_at_least(1),
        metavar="N",
        help="only N documents (default: all with --questions, 500 without)",
    )
    word.add_argument("--plot", type=Path, metavar="FILE", help="draw the table, as PNG, SVG or PDF")
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.chunk_eval import chunk_eval

        return chunk_eval(options)

    word.set_defaults(command=command)


def _export(words: Words) -> None:
    word = _word(words, "export", "Write documents, chunks or vectors with their lineage to files.")
    word.add_argument(
        "path", metavar="FILE_OR_FOLDER", help="where to; the format follows from a file's name"
    )
    word.add_argument(
        "--what",
        choices=["documents", "chunks", "vectors"],
        default="documents",
        help="kept documents, their chunks, or chunks with vectors (default documents)",
    )
    word.add_argument(
        "--format",
        choices=["parquet", "arrow", "jsonl", "duckdb", "lance"],
        help="whatever the file's name is",
    )
    word.add_argument(
        "--changes",
        action="store_true",
        help="write to a folder what has changed since the last export to it; at first everything",
    )
    word.add_argument(
        "--since",
        metavar="RUN_ID",
        help="write to a folder all that has changed since what this run published, as far as the history goes back",
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.export import export

        return export(options)

    word.set_defaults(command=command)


def _trace(words: Words) -> None:
    word = _word(words, "trace", "Where a document, chunk or family came from, and what became of it.")
    word.add_argument(
        "id", help="a document_id, chunk_id or cluster_id ('stemma why', 'search' and 'families' print them)"
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.trace import trace

        return trace(options)

    word.set_defaults(command=command)


def _why(words: Words) -> None:
    word = _word(
        words,
        "why",
        "What became of a document, or of all documents of a file, and why.",
    )
    word.add_argument(
        "document", metavar="PATH_OR_ID", help="a file (or the end of its path) or a document_id"
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.trace import why

        return why(options)

    word.set_defaults(command=command)


def _topics(words: Words) -> None:
    word = _word(words, "topics", "What the corpus is about: words that stand in the same documents.")
    word.add_argument("-n", type=_at_least(1), default=20, metavar="N", help="how many topics (default 20)")
    word.add_argument(
        "--threshold",
        type=_share,
        default=0.2,
        metavar="T",
        help="similarity of the documents of two words from which they belong together (default 0.2)",
    )
    word.add_argument(
        "--least",
        type=_at_least(2),
        default=3,
        metavar="N",
        help="only words that at least N documents have (default 3)",
    )
    word.add_argument("--source", metavar="NAME", help="only of this source")
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.topics import topics

        return topics(options)

    word.set_defaults(command=command)


def _report(words: Words) -> None:
    word = _word(words, "report", "Write what there is to see of the corpus to one HTML file.")
    word.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="the file (default: beside the published one, corpus.report.html)",
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.report import report

        return report(options)

    word.set_defaults(command=command)


def _families(words: Words) -> None:
    word = _word(
        words, "families", "Browse the families of duplicates, and what differs between their members."
    )
    word.add_argument(
        "family",
        nargs="?",
        metavar="ID_OR_PATH",
        help="a document_id, a cluster_id or the beginning of one (8 digits at least), or a file of a document",
    )
    word.add_argument(
        "-n", type=_at_least(1), default=20, metavar="N", help="how many families or members (default 20)"
    )
    word.add_argument(
        "--sort",
        choices=["members", "days", "similarity", "characters"],
        default="members",
        help="most members, most days between them, least similar or longest first (default members)",
    )
    word.add_argument("--source", metavar="NAME", help="only families, or members, of this source")
    word.add_argument(
        "--method",
        choices=["exact", "near", "contained", "edit", "semantic", "bloom"],
        help="only families of which a member was removed so, or these members",
    )
    word.add_argument(
        "--color",
        choices=["auto", "always", "never"],
        default="auto",
        help="differences in colours (default auto: on a terminal, unless NO_COLOR is set)",
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.families import families

        return families(options)

    word.set_defaults(command=command)


def _lookup(words: Words) -> None:
    word = _word(
        words, "lookup", "Find the near-duplicates that a new text has in the corpus, without inserting it."
    )
    word.add_argument(
        "text", metavar="FILE_OR_TEXT", help="a file, or else the text itself; - reads it from standard input"
    )
    word.add_argument("-k", type=_at_least(1), default=5, metavar="N", help="how many documents (default 5)")
    word.add_argument(
        "--threshold",
        type=_share,
        metavar="T",
        help="Jaccard similarity from which a document is shown (default: that of stemma.toml)",
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.lookup import lookup

        return lookup(options)

    word.set_defaults(command=command)


def _select(words: Words) -> None:
    word = _word(words, "select", "Draw a subset of the corpus: diverse, covering, or alike to examples.")
    word.add_argument("-n", type=_at_least(1), default=100, metavar="N", help="how many (default 100)")
    word.add_argument(
        "--by",
        choices=["diversity", "coverage", "likeness"],
        help="diversity (the default): rounds over clusters; coverage: nothing far from what is chosen; likeness",
    )
    word.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="EXAMPLE",
        help="what to be alike to: a document_id, a chunk_id, a text file or a text; may be given several times",
    )
    word.add_argument(
        "--unit",
        choices=["documents", "chunks"],
        default="documents",
        help="what is drawn (default documents)",
    )
    word.add_argument("--source", metavar="NAME", help="only of this source")
    word.add_argument(
        "--rounds",
        type=_at_least(1),
        default=5,
        metavar="N",
        help="of diversity: how often each cluster gives one (default 5); N / rounds clusters are made",
    )
    word.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of diversity (default 0)")
    word.add_argument(
        "--out", type=Path, metavar="FILE", help="write a dataset with lineage: FILE.parquet or FILE.jsonl"
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.select import select

        return select(options)

    word.set_defaults(command=command)


def _verify(words: Words) -> None:
    word = _word(
        words,
        "verify",
        "Rebuild the corpus in a scratch folder and compare: incremental must equal rebuild.",
        epilog=EXIT_CODES,
    )
    word.add_argument(
        "--share",
        type=_share,
        default=1.0,
        metavar="S",
        help="rebuild this share of the files only (0.1: a tenth), and compare what depends on no other document",
    )
    word.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which sample of the files: another for each number"
    )
    word.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="make the rebuild below this folder (default: the corpus's own work folder)",
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.verify import verify

        return verify(options)

    word.set_defaults(command=command)


def _purge(words: Words) -> None:
    word = _word(
        words,
        "purge",
        "Remove documents from the corpus and from its files for good, and keep them out (docs/security.md).",
        epilog="Without --yes it only lists what is named; without a name, what was purged before.",
    )
    word.add_argument(
        "ids", nargs="*", metavar="DOCUMENT_ID", help="ids of documents, as corpus.raw has them"
    )
    word.add_argument(
        "--uri",
        action="append",
        default=[],
        metavar="URI",
        help="a whole file by its path or URL, with all its documents and those to come (again for more)",
    )
    word.add_argument(
        "--where", metavar="SQL", help="documents that meet a condition over the columns of corpus.raw"
    )
    word.add_argument(
        "--reason", metavar="TEXT", help="what lineage.purged is to say: no personal data, it stays for good"
    )
    word.add_argument(
        "--yes",
        action="store_true",
        help="do it; without a name, finish a purge that was interrupted. The history of publications goes too",
    )
    word.add_argument(
        "--keep-run-history",
        action="store_true",
        help="leave Dagster's history of runs, though its pages may quote the documents",
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.purge import purge

        return purge(options)

    word.set_defaults(command=command)


def _compact(words: Words) -> None:
    word = _word(
        words, "compact", "Rewrite the files without dead space and forget results that no document uses."
    )
    word.add_argument(
        "--keep-days",
        type=_at_least(0),
        default=30,
        metavar="N",
        help="keep unused results of the last N days (default 30)",
    )
    word.add_argument(
        "--history-days",
        type=_at_least(1),
        metavar="N",
        help="also delete the finished runs in Dagster's history that are older than N days",
    )
    word.add_argument(
        "--forget-history",
        action="store_true",
        help="leave nothing of earlier publications in the published file",
    )
    word.add_argument("--json", action="store_true", help="print as JSON")

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.compact import compact

        return compact(options)

    word.set_defaults(command=command)


def _ui(words: Words) -> None:
    word = _word(words, "ui", "Open Dagster's UI on this machine (loopback only by default).")
    word.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    word.add_argument("--port", type=_at_least(1, 65535), default=3000, help="port (default 3000)")
    word.add_argument(
        "--read-only",
        action="store_true",
        help="for viewers: nothing can be started or changed, no daemon runs",
    )

    def command(options: argparse.Namespace) -> int:
        from stemma.commands.ui import ui

        return ui(options)

    word.set_defaults(command=command)


if __name__ == "__main__":
    sys.exit(main())

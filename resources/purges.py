"""The list of what has been purged: documents that stay out of the corpus although a source may hold them.

A file of JSON lines beside the published file, `corpus.purged.jsonl`, which no run deletes. It names neither path nor
text: a document's id (a hash of source, path and record), and the hash of its content where no other document has it.
The state has a copy of the list as it was applied last, and is what `lineage.purged` is made of.
"""

import functools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pyarrow as pa

from stemma.errors import StemmaError
from stemma.hashing import UUID as UUID_TYPE
from stemma.hashing import key, uuid_array
from stemma.resources.copying import sync

ROWS = pa.schema(
    [
        pa.field("document_id", UUID_TYPE),
        pa.field("content_hash", UUID_TYPE),
        pa.field("purged_at", pa.timestamp("us")),
        pa.field("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Purge:
    """One document that stays out.

    Attributes:
        document_id: its id; of a file as a whole, the id that it has where it is one document.
        content_hash: its content stays out under any other name too; None where another document has it as well.
        purged_at: when, in UTC.
        reason: what the person said who did it; empty for nothing.
    """

    document_id: UUID
    content_hash: UUID | None
    purged_at: datetime
    reason: str = ""


@dataclass(frozen=True)
class Purges:
    """All of them, and what they are asked: both by hashes alone."""

    rows: tuple[Purge, ...] = ()

    @functools.cached_property
    def documents(self) -> frozenset[bytes]:
        """The ids of documents and files that stay out."""
        return frozenset(row.document_id.bytes for row in self.rows)

    @functools.cached_property
    def contents(self) -> frozenset[bytes]:
        """The hashes of contents that stay out."""
        return frozenset(row.content_hash.bytes for row in self.rows if row.content_hash)

    def has(self, document_id: bytes, content_hash: bytes) -> bool:
        """Tell whether a document stays out, by its id or its content."""
        return document_id in self.documents or content_hash in self.contents

    def __bool__(self) -> bool:
        return bool(self.rows)

    def table(self) -> pa.Table:
        """Return them with the columns of ROWS."""
        return pa.Table.from_arrays(
            [
                uuid_array(row.document_id.bytes for row in self.rows),
                uuid_array(row.content_hash.bytes if row.content_hash else None for row in self.rows),
                pa.array([row.purged_at for row in self.rows], pa.timestamp("us")),
                pa.array([row.reason for row in self.rows], pa.string()),
            ],
            schema=ROWS,
        )


NO_PURGES = Purges()


def file_id(source: str, path: str) -> bytes:
    """Return the id of a file that is one document, which stands for a file as a whole."""
    return key("document", source, path, "")


def read_purges(path: Path) -> Purges | None:
    """Return what the list at `path` has; None where there is no list.

    Raises StemmaError for a line that is none of ours: a document must not come back because of a slip.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise StemmaError(f"{path}: the list of purged documents cannot be read: {error}") from error
    return Purges(tuple(_purge(path, number, line) for number, line in enumerate(lines, 1) if line.strip()))


def _purge(path: Path, number: int, line: str) -> Purge:
    try:
        row = json.loads(line)
        content = row.get("content_hash")
        return Purge(
            UUID(row["document_id"]),
            UUID(content) if content else None,
            datetime.fromisoformat(row["purged_at"]),
            str(row.get("reason", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StemmaError(
            f"{path}, line {number}: no entry of the list of purged documents ({type(error).__name__}: {error})"
        ) from error


def write_purges(path: Path, purges: Iterable[Purge]) -> None:
    """Put the list in place, whole and durable, or leave the one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.with_name(f".{path.name}.{os.getpid()}.next")
    try:
        target.write_text("".join(map(_line, purges)), encoding="utf-8")
        sync(target)
        os.replace(target, path)
        sync(path.parent)
    finally:
        target.unlink(missing_ok=True)


def _line(purge: Purge) -> str:
    row = {
        "document_id": str(purge.document_id),
        "content_hash": str(purge.content_hash) if purge.content_hash else None,
        "purged_at": purge.purged_at.isoformat(),
        "reason": purge.reason,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def joined(before: Sequence[Purge], more: Sequence[Purge]) -> tuple[Purge, ...]:
    """Return both without repetition: what stands there keeps its time, and gets a content's hash if it had none."""
    rows = {row.document_id: row for row in before}
    for row in more:
        known = rows.get(row.document_id)
        if known is None or (known.content_hash is None and row.content_hash is not None):
            rows[row.document_id] = row
    return tuple(rows.values())

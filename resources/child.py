"""The process that computes stages for another: `python -P -m stemma.resources.child`, spoken to over pipes.

It may die of a document, or be killed over one, and nothing but that document is lost. What it is told is trusted
(pickle); what it answers is not, since a parser that was taken over would be writing it: only Arrow and JSON.
"""

import contextlib
import ctypes
import dataclasses
import io
import json
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from datetime import date
from typing import Any, BinaryIO

import pyarrow as pa

from stemma.errors import RetryableError, StemmaError
from stemma.incremental.compute import Computed, Failure, compute
from stemma.incremental.stage import Stage
from stemma.reading import ReadError, Record, read

MIB = 2**20
_PR_SET_PDEATHSIG = 1
# What is read is answered in pieces of this size.
_ITEMS = 256
_ITEM_BYTES = 4 * MIB
# What stands before each part of a message, and the number of parts before them.
LENGTH = struct.Struct("<q")


def write_message(stream: BinaryIO, *parts: bytes) -> None:
    """Write byte strings as one message: their number, then each with its length before it."""
    stream.write(LENGTH.pack(len(parts)))
    for part in parts:
        stream.write(LENGTH.pack(len(part)))
        stream.write(part)
    stream.flush()


def to_ipc(table: pa.Table) -> bytes:
    """Return a table as an Arrow stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def from_ipc(data: bytes) -> pa.Table:
    """Return the table in an Arrow stream. Raises pa.ArrowInvalid where it is none."""
    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table


def failures_to_json(failures: tuple[Failure, ...]) -> bytes:
    """Return failures as JSON."""
    return json.dumps([[f.input_hash.hex(), f.error, f.detail, f.retryable] for f in failures]).encode()


def failures_from_json(data: bytes) -> tuple[Failure, ...]:
    """Return the failures that `failures_to_json` wrote."""
    return tuple(
        Failure(bytes.fromhex(key), str(error), str(detail), bool(retryable))
        for key, error, detail, retryable in json.loads(data)
    )


def items_to_parts(items: list[Record | ReadError]) -> tuple[bytes, bytes]:
    """Return what was read as an Arrow stream of the contents and JSON of all else."""
    records = [item if isinstance(item, Record) else None for item in items]
    contents = pa.table(
        {
            "content": pa.array([record and record.content for record in records], pa.string()),
            "content_bytes": pa.array([record and record.content_bytes for record in records], pa.binary()),
        }
    )
    rest = [
        {name: value for name, value in _fields(item).items() if name not in contents.schema.names}
        for item in items
    ]
    return to_ipc(contents), json.dumps(rest, default=_iso).encode()


def items_from_parts(contents: bytes, rest: bytes) -> Iterator[Record | ReadError]:
    """Yield what `items_to_parts` wrote."""
    for content, fields in zip(from_ipc(contents).to_pylist(), json.loads(rest), strict=True):
        if "error" in fields:
            yield ReadError(**fields)
        else:
            day = fields.pop("document_date")
            yield Record(**fields, **content, document_date=None if day is None else date.fromisoformat(day))


def _fields(item: Record | ReadError) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def _iso(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} in a record")


def main() -> None:
    """Answer requests on standard input until it ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not stand between the answers.
    os.dup2(2, 1)
    stages: dict[bytes, tuple[Stage, Any]] = {}
    while (request := _read_request(requests)) is not None:
        kind, trusted, memory, body = request
        try:
            if kind == b"read":
                _limit_memory(int(memory))
                _read(answers, trusted, body)
                continue
            if trusted not in stages:
                stages = {trusted: _load(trusted)}
                _limit_memory(int(memory))
            stage, model = stages[trusted]
            result: Computed = compute(stage, from_ipc(body), model)
            write_message(answers, b"done", to_ipc(result.rows), failures_to_json(result.failures))
        except MemoryError:
            write_message(answers, b"retry", b"out of memory", b"")
        except StemmaError as error:
            answer = b"retry" if isinstance(error, RetryableError) else b"broken"
            write_message(answers, answer, str(error).encode("utf-8", "replace"), b"")
        except Exception as error:  # a fault of this program, and no document's
            reason = f"{type(error).__name__}: {error}"[:2000]
            write_message(answers, b"broken", reason.encode("utf-8", "replace"), b"")


def _read(answers: BinaryIO, trusted: bytes, path: bytes) -> None:
    """Read a file and answer with what is in it, some items at a time."""
    name, options = pickle.loads(trusted)
    items: list[Record | ReadError] = []
    size = 0
    with open(os.fsdecode(path), "rb") as file:
        for item in read(file, name, options):
            items.append(item)
            size += len(item.content or "") if isinstance(item, Record) else 0
            if len(items) >= _ITEMS or size >= _ITEM_BYTES:
                write_message(answers, b"items", *items_to_parts(items))
                items, size = [], 0
    write_message(answers, b"end", *items_to_parts(items))


def _load(pickled: bytes) -> tuple[Stage, Any]:
    try:
        stage: Stage = pickle.loads(pickled)
    except (ImportError, AttributeError) as error:
        raise StemmaError(f"a worker process cannot find the stage's function: {error}") from error
    return stage, stage.load(**stage.parameters) if stage.load is not None else None


def _die_with_parent() -> None:
    """Let Linux kill this process when its parent dies, also in the middle of a document."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(mebibytes: int) -> None:
    """Allow this much on top of what the process has mapped already."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (mapped + mebibytes * MIB, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_request(stream: BinaryIO) -> list[bytes] | None:
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    parts = []
    for _ in range(LENGTH.unpack(header)[0]):
        size = LENGTH.unpack(stream.read(LENGTH.size))[0]
        parts.append(stream.read(size))
    return parts


if __name__ == "__main__":
    main()

"""The process that computes stages for another: `python -P -m stemma.resources.child`, spoken to over pipes.

It may die of a document, or be killed over one, and nothing but that document is lost. What it is told is trusted
(pickle); what it answers is not, since a parser that was taken over would be writing it: only Arrow and JSON.
"""

import contextlib
import ctypes
import io
import json
import os
import pickle
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

import pyarrow as pa

from stemma.errors import RetryableError, StemmaError
from stemma.incremental.compute import Computed, Failure, compute
from stemma.incremental.stage import Stage

MIB = 2**20
_PR_SET_PDEATHSIG = 1
_LENGTH = struct.Struct("<q")


def write_message(stream: BinaryIO, *parts: bytes) -> None:
    """Write byte strings as one message: their number, then each with its length before it."""
    stream.write(_LENGTH.pack(len(parts)))
    for part in parts:
        stream.write(_LENGTH.pack(len(part)))
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


def main() -> None:
    """Answer requests on standard input until it ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not stand between the answers.
    os.dup2(2, 1)
    stages: dict[bytes, tuple[Stage, Any]] = {}
    while (request := _read_request(requests)) is not None:
        pickled, memory, batch = request
        try:
            if pickled not in stages:
                stages = {pickled: _load(pickled)}
                _limit_memory(int(memory))
            stage, model = stages[pickled]
            result: Computed = compute(stage, from_ipc(batch), model)
            write_message(answers, b"done", to_ipc(result.rows), failures_to_json(result.failures))
        except StemmaError as error:
            kind = b"retry" if isinstance(error, RetryableError) else b"broken"
            write_message(answers, kind, str(error).encode("utf-8", "replace"), b"")


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
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    parts = []
    for _ in range(_LENGTH.unpack(header)[0]):
        size = _LENGTH.unpack(stream.read(_LENGTH.size))[0]
        parts.append(stream.read(size))
    return parts


if __name__ == "__main__":
    main()

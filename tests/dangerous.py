"""Stage functions that do to their process what a hostile document does to a parser's; run in worker processes."""

import ctypes
import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stemma.incremental.stage import Stage

TEXT = pa.schema([("text", pa.string())])
OUT = pa.schema([pa.field("upper", pa.string())])


def act(table: pa.Table, *, patience: float = 60.0) -> pa.Table:
    """Return the texts in upper case, but for those that say what is to happen."""
    for text in table["text"].to_pylist():
        match text:
            case "crash":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(patience)
            case "swallow":
                bytearray(2**40)
            case "swallow slowly":
                _ = [bytearray(2**24) for _ in range(2**16)]
            case "refuse":
                raise ValueError("a bad document")
            case "print":
                print("noise on standard output", flush=True)
                os.write(1, b"more of it\n")
            case "process":
                table = pa.table({"text": [str(os.getpid())] * table.num_rows})
    return pa.table({"upper": pc.utf8_upper(table["text"])})


def broken(table: pa.Table) -> pa.Table:
    """Return a row too few."""
    return pa.table({"upper": table["text"]}).slice(1)


def nap(table: pa.Table) -> pa.Table:
    """Return the texts, after a while."""
    time.sleep(0.2)
    return act(table)


def die_once(table: pa.Table, *, log: str) -> pa.Table:
    """Write down which texts come; the first time that "die once" does, end this process as the system would."""
    texts, path = table["text"].to_pylist(), Path(log)
    seen = path.read_text() if path.exists() else ""
    with path.open("a") as file:
        file.writelines(f"{text}\n" for text in texts)
    if "die once" in texts and "die once" not in seen:
        os.kill(os.getpid(), signal.SIGKILL)
    return act(table)


def with_model(table: pa.Table, *, model: str) -> pa.Table:
    """Return the texts in upper case, after the model."""
    return pa.table({"upper": pc.binary_join_element_wise(model, pc.utf8_upper(table["text"]), " ")})


def weights(path: Path) -> dict[str, str]:
    """Return the digest of weights: all that they are."""
    return {"weights": path.read_text()}


def load() -> str:
    """Return the model."""
    return "model"


def load_nothing() -> str:
    """Find no model."""
    raise OSError("no weights here")


def marked(table: pa.Table) -> pa.BooleanArray:
    """All rows are to be computed alone."""
    return pa.array([True] * table.num_rows)


def stage(function=act, *, alone=marked, **parameters) -> Stage:
    """Return a stage of one of these functions."""
    return Stage("act", function, parameters, TEXT, OUT, parallel=True, alone=alone)

"""Worker processes: stages computed on all cores, and apart from the run where a document may kill its process."""

import atexit
import contextlib
import errno
import os
import pickle
import queue
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stemma.errors import RetryableError, StemmaError
from stemma.incremental.compute import Computed, compute, failed, schema_of
from stemma.incremental.stage import Stage
from stemma.reading import ReadError, ReadOptions, Record
from stemma.resources.child import (
    LENGTH,
    failures_from_json,
    from_ipc,
    items_from_parts,
    to_ipc,
    write_message,
)

MEMORY_MIB = 2048
PARSER_DIED = "ParserDied"
SECONDS = 60.0
# A signal by which a process ends for its own fault, so that it would again: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
_OWN_FAULT = frozenset({4, 6, 7, 8, 11})


@dataclass(frozen=True)
class Limits:
    """What one document may cost in a worker process.

    Attributes:
        seconds: wall-clock time for a document that is computed alone, and for every 8 MiB batch of others.
        memory_mib: memory on top of what the process has when it starts.
    """

    seconds: float = SECONDS
    memory_mib: int = MEMORY_MIB


class _Died(Exception):
    """The worker process died, or was killed because its time was over (`late`)."""

    def __init__(self, *, late: bool = False, signal: int = 0) -> None:
        super().__init__()
        self.late = late
        self.signal = signal

    @property
    def detail(self) -> str:
        return f"the process that parsed it died (signal {self.signal})"


class Workers:
    """A pool of worker processes, each started when it is first needed.

    Args:
        processes: how many; 0 computes everything in this process, without limits.
        limits: what a document may cost.
    """

    def __init__(self, processes: int | None = None, limits: Limits | None = None) -> None:
        self._processes = len(os.sched_getaffinity(0)) if processes is None else processes
        self._limits = limits or Limits()
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: list[_Worker] = []
        self.closed = False

    def run(self, stage: Stage, batches: Iterable[pa.Table], count: int) -> Iterator[Computed]:
        """Yield the outcome of each batch (`count` rows in all), in pieces, in no particular order.

        Raises StemmaError when the stage's function broke its contract.
        """
        small = stage.alone is None and count < stage.small_rows
        packed = None if self._processes == 0 or small or not stage.parallel else pickled(stage)
        if packed is None:
            yield from self._here(stage, batches)
            return
        model = _Lazy(stage)
        with ThreadPoolExecutor(self._processes) as threads:
            pending: deque[Future[list[Computed]]] = deque()
            try:
                for batch in batches:
                    together, alone = _split(stage, batch)
                    if together.num_rows and count < stage.small_rows:
                        yield compute(stage, together, model.value)
                    elif together.num_rows:
                        pending.append(threads.submit(self._together, stage, packed, together))
                    if alone.num_rows:
                        pieces = [alone.slice(start, 64) for start in range(0, alone.num_rows, 64)]
                        pending.extend(threads.submit(self._alone, stage, packed, piece) for piece in pieces)
                    while len(pending) > self._processes:
                        yield from pending.popleft().result()
                while pending:
                    yield from pending.popleft().result()
            except BaseException:
                for future in pending:
                    future.cancel()
                self.close()
                raise

    def read(self, path: str, name: str, options: ReadOptions) -> Iterator[Record | ReadError]:
        """Yield what `stemma.reading.read` finds in a file, read by a worker process.

        If that dies, or needs more than its memory, the rest of the file comes as one `ReadError`.

        Raises:
            TimeoutError: the next items took longer than the limit.
            OSError: the file cannot be opened.
        """
        worker = self._take()
        try:
            yield from worker.read(path, name, options, self._limits)
        finally:
            self._idle.put(worker)

    @property
    def processes(self) -> int:
        """How many processes there are at most; 0 means none but this."""
        return self._processes

    @property
    def limits(self) -> Limits:
        """What a document may cost."""
        return self._limits

    def rest(self) -> None:
        """End the processes that have nothing to do; each starts anew when it is next used."""
        resting = []
        with contextlib.suppress(queue.Empty):
            while True:
                resting.append(self._idle.get_nowait())
                resting[-1].kill()
        for worker in resting:
            self._idle.put(worker)

    def close(self) -> None:
        """End all processes."""
        self.closed = True
        for worker in self._all:
            worker.kill()

    @staticmethod
    def _here(stage: Stage, batches: Iterable[pa.Table]) -> Iterator[Computed]:
        model = _Lazy(stage)
        for batch in batches:
            yield compute(stage, batch, model.value)

    def _together(self, stage: Stage, pickled: bytes, batch: pa.Table) -> list[Computed]:
        """Compute a batch at once; if it kills its process, row by row."""
        try:
            return [self._compute(stage, pickled, batch)]
        except _Died:
            return self._alone(stage, pickled, batch)

    def _alone(self, stage: Stage, pickled: bytes, batch: pa.Table) -> list[Computed]:
        outcomes = []
        for position in range(batch.num_rows):
            row = batch.slice(position, 1)
            try:
                outcomes.append(self._compute(stage, pickled, row))
            except _Died as death:
                outcomes.append(self._failed(stage, row, death))
        return outcomes

    def _failed(self, stage: Stage, row: pa.Table, death: _Died) -> Computed:
        if death.late:
            detail = f"it took more than {self._limits.seconds:g} seconds; the next run tries again"
            return failed(stage, row, "TimeoutError", detail, retryable=True)
        # Whoever killed it (the system, short of memory) had a reason that may pass; a fault of its own stays.
        return failed(stage, row, PARSER_DIED, death.detail, retryable=death.signal not in _OWN_FAULT)

    def _compute(self, stage: Stage, pickled: bytes, batch: pa.Table) -> Computed:
        worker = self._take()
        try:
            return worker.compute(stage, pickled, batch, self._limits)
        finally:
            self._idle.put(worker)

    def _take(self) -> "_Worker":
        if self.closed:
            raise StemmaError("the worker processes were ended")
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker()
            self._all.append(worker)
            return worker


_shared: dict[tuple[int | None, Limits], Workers] = {}


def shared_workers(processes: int | None, limits: Limits) -> Workers:
    """Return this process's pool of these settings, which lives until the process ends: starting one takes time."""
    settings = (processes, limits)
    if settings not in _shared or _shared[settings].closed:
        _shared[settings] = Workers(processes, limits)
        atexit.register(_shared[settings].close)
    return _shared[settings]


def pickled(order: Any) -> bytes | None:
    """Return a stage or function for a worker; None where no other process can find by name what it is made of."""
    try:
        return pickle.dumps(order)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def _parser_died(death: _Died) -> ReadError:
    return ReadError(None, None, None, PARSER_DIED, death.detail)


def _stopped(kind: bytes, detail: str) -> ReadError:
    """Return the error of a file whose reading ended: for want of memory, or by what the reader raised."""
    name, _, reason = detail.partition(": ")
    if kind == b"retry" or not name.isidentifier():
        return ReadError(None, None, None, "too large", f"{detail}: parsing it was stopped")
    return ReadError(None, None, None, name, reason or name)


def _split(stage: Stage, batch: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows to be computed together and those to be computed alone."""
    if stage.alone is None:
        return batch, batch.slice(0, 0)
    alone = stage.alone(batch)
    return batch.filter(pc.invert(alone)), batch.filter(alone)


class _Lazy:
    """The stage's model in this process, loaded when it is first asked for."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._loaded = False
        self._value: Any = None

    @property
    def value(self) -> Any:
        if not self._loaded and self._stage.load is not None:
            self._value = self._stage.load(**self._stage.parameters)
        self._loaded = True
        return self._value


# Linux ends a process with the thread that started it (PR_SET_PDEATHSIG), so one thread that lives on starts all.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="starts-workers")


def _start_process() -> "subprocess.Popen[bytes]":
    # -P: a file in the working folder must not be imported in the place of a library.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "stemma.resources.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


class _Worker:
    """One worker process; started when it is first used, and anew after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stage = b""

    def compute(self, stage: Stage, pickled: bytes, batch: pa.Table, limits: Limits) -> Computed:
        """Compute a batch. Raises _Died when the process did, StemmaError when the stage broke its contract."""
        process = self._ready()
        assert process.stdin is not None
        try:
            memory = str(limits.memory_mib).encode()
            write_message(process.stdin, b"compute", pickled, memory, to_ipc(batch))
            # The first request also imports what the stage needs.
            extra = 0.0 if self._stage == pickled else SECONDS
            self._stage = pickled
            kind, body, more = self._answer(process, time.monotonic() + limits.seconds + extra)
        except BrokenPipeError:
            raise self._died() from None
        if kind == b"done":
            return self._checked(stage, body, more)
        error = body.decode("utf-8", "replace")
        raise RetryableError(error) if kind == b"retry" else StemmaError(error)

    @staticmethod
    def _checked(stage: Stage, body: bytes, failures: bytes) -> Computed:
        rows = from_ipc(body)
        if rows.schema != schema_of(stage):
            raise StemmaError(f"stage {stage.name}: a worker process answered with another schema")
        return Computed(rows, failures_from_json(failures))

    def read(
        self, path: str, name: str, options: ReadOptions, limits: Limits
    ) -> Iterator[Record | ReadError]:
        """Yield what is in a file; see `Workers.read`."""
        if not os.path.isfile(path):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        process = self._ready()
        assert process.stdin is not None
        kind = b""
        try:
            trusted, memory = pickle.dumps((name, options)), str(limits.memory_mib).encode()
            write_message(process.stdin, b"read", trusted, memory, os.fsencode(path))
            while kind != b"end":
                kind, *parts = self._answer(process, time.monotonic() + limits.seconds)
                if kind not in (b"items", b"end"):
                    yield _stopped(kind, parts[0].decode("utf-8", "replace"))
                    return
                yield from items_from_parts(*parts)
        except BrokenPipeError:
            yield _parser_died(self._died())
        except _Died as death:
            if death.late:
                raise TimeoutError(f"reading took more than {limits.seconds:g} seconds") from death
            yield _parser_died(death)
        except GeneratorExit:
            # Whoever reads no further leaves answers behind, which the next one would take for its own.
            self.kill()
            raise

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _ready(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        return self._process or self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._process = _STARTER.submit(_start_process).result()
        self._stage = b""
        return self._process

    def _answer(self, process: "subprocess.Popen[bytes]", deadline: float) -> list[bytes]:
        parts = []
        for _ in range(LENGTH.unpack(self._read(process, LENGTH.size, deadline))[0]):
            size = LENGTH.unpack(self._read(process, LENGTH.size, deadline))[0]
            parts.append(self._read(process, size, deadline))
        return parts

    def _read(self, process: "subprocess.Popen[bytes]", size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        data = bytearray()
        while len(data) < size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.kill()
                raise _Died(late=True)
            piece = os.read(descriptor, min(size - len(data), 2**20))
            if not piece:
                raise self._died()
            data += piece
        return bytes(data)

    def _died(self) -> _Died:
        process, self._process = self._process, None
        if process is None:
            return _Died()
        code = process.wait()
        return _Died(signal=-code if code < 0 else 0)

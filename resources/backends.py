"""What a model runs on and computes in: the fastest that this machine has and that stays faithful to float32.

`auto` is decided once for a model, a processor and versions of the libraries, by embedding a fixed sample of texts,
and remembered in the user's cache.
"""

import importlib.metadata
import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from stemma import hashing
from stemma.embedding.arrays import Vectors
from stemma.errors import StemmaError
from stemma.resources import graphs
from stemma.resources.cache import cached, keep

BACKENDS = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "float32", "bfloat16")
# Cosine to float32 that every text of the sample must reach.
FAITHFUL = 0.9999
# Raised when what is computed in bfloat16 changes, so that it is looked at again.
_VERSION = 1
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

_SENTENCES = (
    "The treaty was signed in the spring, after two years of talks.",
    "def area(radius: float) -> float:\n    return 3.14159 * radius ** 2",
    "Ein Satz auf Deutsch, mit Zahlen: 1.234,56 Euro am 3. Mai 1998.",
    "数据处理系统每天更新一次，漢字かな交じり文も入る。",
    "Договор был подписан весной; الاتفاقية وُقِّعت في الربيع.",
    "| name | price |\n|---|---|\n| bread | 2.50 |\n| olives | 4.20 |",
    "Nobody knew whether the results, if there were any, could be trusted at all.",
    "สนธิสัญญานี้ลงนามในฤดูใบไม้ผลิ",
)


@dataclass(frozen=True)
class Choice:
    """A backend ("torch" or "openvino") and a precision ("float32" or "bfloat16")."""

    backend: str
    precision: str


Embed = Callable[[Choice, list[str]], Vectors]


def choose(backend: str, precision: str, device: str, digests: Mapping[str, str], embed: Embed) -> Choice:
    """Return what a model is run on and what it computes in.

    Args:
        backend, precision: as configured; what is not "auto" is taken as it is.
        device: as configured.
        digests: SHA-256 of the model's files.
        embed: embeds texts as documents by a choice; raises StemmaError where it is not possible.
    """
    candidates = list(_candidates(backend, precision, device))
    if len(candidates) == 1:
        return candidates[0]
    facts = [
        _VERSION,
        [vars(each) for each in candidates],
        _processor(),
        _versions(),
        sorted(digests.items()),
    ]
    name = hashing.key(json.dumps(facts)).hex()
    remembered = cached("faithful", name)
    if remembered is not None:
        return Choice(**remembered)
    chosen = _fastest_faithful(candidates, embed)
    keep("faithful", name, vars(chosen))
    return chosen


def sample() -> list[str]:
    """Return the fixed sample: texts of many scripts, from one sentence to more than most models see."""
    count = len(_SENTENCES)
    return [
        "\n".join(_SENTENCES[(first + number) % count] for number in range(length))
        for length in (1, 3, 8, 24)
        for first in range(0, count, 1 if length == 1 else 2)
    ]


def _candidates(backend: str, precision: str, device: str) -> Iterator[Choice]:
    """Yield what is possible, the fastest first."""
    on_cpu = runs_on_cpu(device)
    precisions = [precision]
    if precision == "auto":
        precisions = ["bfloat16", "float32"] if on_cpu and has_bfloat16() else ["float32"]
    backends = [backend]
    if backend == "auto":
        backends = ["openvino", "torch"] if on_cpu and graphs.installed() else ["torch"]
    for each in precisions:
        yield from (Choice(name, each) for name in backends)


def _fastest_faithful(candidates: list[Choice], embed: Embed) -> Choice:
    texts = sample()
    exact = embed(Choice("torch", "float32"), texts)
    log = logging.getLogger(__name__)
    for choice in candidates[:-1]:
        try:
            cosine = float(np.sum(embed(choice, texts) * exact, axis=1).min())
        except StemmaError as error:
            log.warning("%s", error)
            continue
        if cosine >= FAITHFUL:
            return choice
        log.warning("%s in %s is not used: cosine %.5f to float32", choice.backend, choice.precision, cosine)
    return candidates[-1]


@cache
def runs_on_cpu(device: str) -> bool:
    """Tell whether a device means the CPU; "auto" means a GPU where there is one."""
    if device != "auto":
        return device == "cpu"
    if importlib.metadata.version("torch").endswith("+cpu"):
        return True
    import torch

    return not torch.accelerator.is_available()


@cache
def has_bfloat16() -> bool:
    """Tell whether the processor multiplies matrices of bfloat16 faster than of float32."""
    return not _BFLOAT16_FLAGS.isdisjoint(_cpu_info("flags").split() + _cpu_info("Features").split())


def _processor() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


@cache
def _cpu_info(key: str) -> str:
    """Return what Linux says about the first processor; elsewhere nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split("\t")[0] == key), "")


def _versions() -> dict[str, str]:
    names = [name for name in graphs.LIBRARIES if name != "openvino" or graphs.installed()]
    return {name: importlib.metadata.version(name) for name in names}

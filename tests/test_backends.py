"""What a model runs on and computes in changes the speed of its vectors, hardly the vectors, and is in the recipe."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from stemma.embedding import encode
from stemma.embedding.arrays import Vectors, matrix
from stemma.errors import StemmaError, UsageError
from stemma.resources import backends, graphs
from stemma.resources.backends import Choice, choose, sample
from stemma.resources.embedder import Embedder, resolve_embedder

TEXTS = [*sample(), "", "word", "unbroken" * 500]
FAST, HALF, PLAIN = (
    Choice("openvino", "bfloat16"),
    Choice("torch", "bfloat16"),
    Choice("torch", "float32"),
)


def embed(embedder: Embedder, model: Any, texts: list[str]) -> Vectors:
    return matrix(embedder.function(pa.table({"text": texts}), **embedder.parameters, model=model))


def load(embedder: Embedder) -> Any:
    assert embedder.load is not None
    return embedder.load(**embedder.parameters)


@pytest.fixture
def capable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with bfloat16 and OpenVINO, and an empty cache."""
    monkeypatch.setattr(backends, "has_bfloat16", lambda: True)
    monkeypatch.setattr(backends, "runs_on_cpu", lambda _device: True)
    monkeypatch.setattr(graphs, "installed", lambda: True)
    monkeypatch.setattr(backends, "_versions", dict)
    monkeypatch.setenv("STEMMA_CACHE", str(tmp_path))


class Machine:
    """Embeds with a given cosine to float32 for each choice; None for a model that cannot be converted."""

    def __init__(self, **cosines: float | None) -> None:
        self.cosines = cosines
        self.asked: list[Choice] = []

    def __call__(self, choice: Choice, texts: list[str]) -> Vectors:
        self.asked.append(choice)
        cosine = 1.0 if choice == PLAIN else self.cosines.get(f"{choice.backend}_{choice.precision}", 1.0)
        if cosine is None:
            raise StemmaError("the model cannot be converted")
        vectors = np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(texts), 1))
        vectors[-1] = cosine, np.sqrt(1 - cosine**2)
        return vectors


@pytest.mark.usefixtures("capable")
def test_the_fastest_that_stays_faithful_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert choose("auto", "auto", "cpu", {"weights": "a"}, Machine()) == FAST
    assert choose("auto", "auto", "cpu", {"weights": "b"}, Machine(openvino_bfloat16=0.9998)) == HALF
    assert "0.99980" in caplog.text
    assert choose("auto", "auto", "cpu", {"weights": "c"}, Machine(openvino_bfloat16=None)) == HALF
    assert "cannot be converted" in caplog.text
    drifting = Machine(openvino_bfloat16=0.5, torch_bfloat16=0.5, openvino_float32=None)
    assert choose("auto", "auto", "cpu", {"weights": "d"}, drifting) == PLAIN


@pytest.mark.usefixtures("capable")
def test_a_model_is_looked_at_once() -> None:
    machine = Machine(openvino_bfloat16=None)
    for _ in range(3):
        assert choose("auto", "auto", "cpu", {"weights": "a"}, machine) == HALF
    assert machine.asked == [PLAIN, FAST, HALF]
    choose("auto", "auto", "cpu", {"weights": "other"}, machine)
    assert len(machine.asked) == 6


@pytest.mark.usefixtures("capable")
def test_what_is_configured_is_taken_unseen() -> None:
    machine = Machine()
    assert choose("torch", "bfloat16", "cpu", {}, machine) == HALF
    assert choose("openvino", "bfloat16", "cpu", {}, machine) == FAST
    assert machine.asked == []


def test_without_bfloat16_and_openvino_there_is_nothing_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_bfloat16", lambda: False)
    monkeypatch.setattr(graphs, "installed", lambda: False)
    machine = Machine()
    assert choose("auto", "auto", "cpu", {}, machine) == PLAIN
    assert choose("auto", "auto", "cuda", {}, machine) == PLAIN
    assert machine.asked == []
    with pytest.raises(StemmaError, match="pip install"):
        load(resolve_embedder(device="cpu", backend="openvino"))


def test_impossible_backends_are_refused() -> None:
    with pytest.raises(UsageError, match="backend"):
        resolve_embedder(backend="jax")
    with pytest.raises(UsageError, match="runs on a CPU"):
        resolve_embedder(device="cuda", backend="openvino")


@pytest.fixture(scope="module")
def exact() -> Vectors:
    plain = resolve_embedder(device="cpu")
    return embed(plain, load(plain), TEXTS)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def graph(request: pytest.FixtureRequest) -> tuple[Embedder, Any]:
    """MiniLM as a graph, and how it was asked for."""
    pytest.importorskip("openvino")
    embedder = resolve_embedder(device="cpu", precision=request.param, backend="openvino")
    return embedder, load(embedder)


def test_a_graph_gives_the_vectors_of_the_model(graph: tuple[Embedder, Any], exact: Vectors) -> None:
    embedder, model = graph
    vectors = embed(embedder, model, TEXTS)
    faithful = 0.999999 if embedder.parameters["precision"] == "float32" else backends.FAITHFUL
    assert (vectors * exact).sum(axis=1).min() >= faithful
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embed(embedder, model, []).shape == (0, 384)
    query = np.array(embedder.embed_query(TEXTS[0], model), dtype=np.float32)
    assert np.array_equal(query, vectors[0])


@pytest.mark.parametrize("batch", [1, 5])
def test_a_graphs_vectors_are_the_same_bits_in_any_batch(graph: tuple[Embedder, Any], batch: int) -> None:
    embedder, model = graph
    vectors = embed(embedder, model, TEXTS)
    order = np.random.default_rng(batch).permutation(len(TEXTS))
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        assert np.array_equal(embed(embedder, model, [TEXTS[row] for row in rows]), vectors[rows])


def test_backend_and_precision_are_named(graph: tuple[Embedder, Any]) -> None:
    embedder, _ = graph
    assert embedder.parameters["backend"] == "openvino"
    assert "openvino" in embedder.libraries
    plain = resolve_embedder(device="cpu")
    assert plain.parameters["backend"] == "torch"
    assert plain.function is encode


def test_a_model_that_no_graph_can_hold_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("STEMMA_CACHE", str(tmp_path))
    monkeypatch.setattr(graphs, "_MODULES", frozenset({"Transformer", "Pooling"}))
    with pytest.raises(StemmaError, match=r"cannot hold: Normalize.*backend = 'torch'"):
        load(resolve_embedder(device="cpu", backend="openvino"))


def test_a_loaded_model_warns_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """transformers has something to say of each model that becomes a graph, which no user can do anything about."""
    from transformers.utils import logging as transformers_logging

    load(resolve_embedder())
    transformers_logging.get_logger("transformers.modeling_utils").warning("`loss_type=None` was set")
    assert capfd.readouterr().err == ""


def test_the_sample_is_of_all_lengths() -> None:
    tokenizer = Tokenizer.from_file(str(resolve_embedder(device="cpu").tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    lengths = [len(each) for each in tokenizer.encode_batch(sample())]
    assert min(lengths) < 32
    assert max(lengths) > 256


def test_a_graph_is_first_used_by_one_thread_alone() -> None:
    """Two threads that use OpenVINO for the first time at once wait for each other for ever, at times."""
    pytest.importorskip("openvino")
    code = (
        "import pyarrow as pa; from stemma.resources.embedder import resolve_embedder;"
        "e = resolve_embedder(device='cpu', backend='openvino'); m = e.load(**e.parameters);"
        "table = pa.table({'text': [f'text {n} ' * n for n in range(1, 40)]});"
        "print(e.function(table, **e.parameters, model=m).num_rows)"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.strip() == "39"

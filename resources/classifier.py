"""Quality models: a function by name, or a sequence classifier in a folder (safetensors or ONNX)."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stemma.cleaning.classification import INPUTS, OUTPUTS, Classifier, classify
from stemma.errors import StemmaError, UsageError
from stemma.functions import is_function, let_import, load_function
from stemma.hashing import key
from stemma.incremental.recipe import code_hash
from stemma.incremental.stage import Stage

_MODEL_FILES = (".safetensors", ".onnx", ".json", ".txt", ".model")
# Texts are cut to what the model sees; so many are run together, of similar length.
_BATCH = 16
_MAX_TOKENS = 512


def classifier_stage(name: str, path: str, label: str | None, version: int, directory: Path) -> Stage:
    """Return the stage that scores texts with one quality model; it is loaded when a text must be scored.

    Args:
        name: what the score is called.
        path: `module:function` (found from `directory` or where Python finds modules), or a folder with
            config.json, tokenizer.json and model.safetensors or model.onnx.
        label: the label whose probability is the score; None takes the last. A model with one output gives it as
            it is.
        version: part of the recipe.
        directory: where a relative path starts.

    Raises:
        StemmaError: there is no such function or folder, or the folder holds pickled weights only.
    """
    settings = {"name": name, "label": label or "", "version": version}
    if is_function(path):
        function = _function(path, directory)
        load: Callable[..., Classifier] = partial(_given, function)
        digests = {"function": code_hash(function)}
        libraries: tuple[str, ...] = ()
        facts = None
    else:
        folder = (directory / Path(path).expanduser()).resolve()
        digests = _digests(folder, path)
        load = partial(_load, folder)
        facts = partial(_digests, folder, path)
        libraries = ("transformers", "torch", "tokenizers", "onnxruntime")
    return Stage(
        name=f"classify_{name}",
        function=classify,
        parameters=settings,
        inputs=INPUTS,
        outputs=OUTPUTS,
        libraries=libraries,
        digests=digests,
        load=load,
        batch_rows=128,
        facts=facts,
    )


def _given(function: Classifier, **_settings: Any) -> Classifier:
    return function


def _function(path: str, directory: Path) -> Classifier:
    let_import(directory)
    try:
        return load_function(path)
    except UsageError as error:
        raise UsageError(f"[[clean.models]] path {error}") from error


def _digests(folder: Path, path: str) -> dict[str, str]:
    if not (folder / "config.json").is_file():
        raise UsageError(f"[[clean.models]] path {path!r}: there is no folder {folder} with a config.json")
    files = sorted(item for item in folder.iterdir() if item.suffix in _MODEL_FILES and item.is_file())
    if not any(item.suffix in (".safetensors", ".onnx") for item in files):
        raise UsageError(
            f"[[clean.models]] path {path!r}: there is neither model.safetensors nor model.onnx in {folder}"
        )
    return {item.name: key(item.read_bytes()).hex() for item in files}


def _load(folder: Path, *, name: str, label: str, version: int) -> Classifier:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    logits = _onnx_logits(folder) if (folder / "model.onnx").is_file() else _torch_logits(folder, name)
    position = _position(config, label, name)
    return partial(_scores, logits, position)


def _position(config: dict[str, Any], label: str, name: str) -> int:
    labels = {str(value): int(number) for number, value in (config.get("id2label") or {}).items()}
    if not label:
        return -1
    if label not in labels:
        raise UsageError(
            f"[[clean.models]] label: quality model {name!r} has no label {label!r}; it has {', '.join(labels)}"
        )
    return labels[label]


def _scores(logits: Callable[[list[str]], Any], position: int, texts: list[str]) -> Sequence[float]:
    import numpy as np

    scores = np.zeros(len(texts))
    # A batch is padded to its longest text; by length, little of it is padding.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        values = np.asarray(logits([texts[index] for index in chosen]), dtype=np.float64)
        if values.shape[1] > 1:
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        # Padding moves the last bits of a float32: what is kept must not depend on the neighbours.
        scores[chosen] = np.round(values[:, position], 4)
    return scores.tolist()


def _torch_logits(folder: Path, name: str) -> Callable[[list[str]], Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    except Exception as error:  # whatever a broken model makes the libraries raise
        raise StemmaError(f"cannot load the quality model {name} from {folder}: {error}") from error
    limit = min(getattr(model.config, "max_position_embeddings", _MAX_TOKENS), _MAX_TOKENS)

    def logits(texts: list[str]) -> Any:
        tokens = tokenizer(texts, truncation=True, max_length=limit, padding=True, return_tensors="pt")
        with torch.inference_mode():
            return model(**tokens).logits.float().numpy()

    return logits


def _onnx_logits(folder: Path) -> Callable[[list[str]], Any]:
    import numpy as np
    from tokenizers import Tokenizer

    try:
        import onnxruntime
    except ImportError as error:
        raise StemmaError("a quality model in ONNX needs onnxruntime: pip install 'stemma[onnx]'") from error
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(_MAX_TOKENS)
    tokenizer.enable_padding()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def logits(texts: list[str]) -> Any:
        encodings = tokenizer.encode_batch(texts)
        values = {
            "input_ids": [encoding.ids for encoding in encodings],
            "attention_mask": [encoding.attention_mask for encoding in encodings],
            "token_type_ids": [encoding.type_ids for encoding in encodings],
        }
        return session.run(None, {name: np.array(values[name], np.int64) for name in names})[0]

    return logits

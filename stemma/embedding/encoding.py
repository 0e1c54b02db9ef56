"""Embeddings by a sentence-transformers model, bit for bit the same whatever else is in the batch."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stemma.embedding.arrays import Vectors, vector_table
from stemma.embedding.context import texts_in_context
from stemma.embedding.shapes import CPU_TOKENS, GPU_TOKENS, Indices, fixed_shapes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The names under which models keep the prompt for what is searched (sentence-transformers, encode_document).
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")

Features = dict[str, Any]


def encode(
    table: pa.Table, *, name: str, backend: str, precision: str, device: str, model: "SentenceTransformer"
) -> pa.Table:
    """Embed texts as documents.

    On one machine a text's vector depends on the text alone, to the last bit: each is padded to the next
    multiple of 8 of its own length, and computed in a batch of a shape that follows from that length. Texts
    longer than the model's limit are truncated by the model.

    Args:
        table: with the column `text` (string), and perhaps `section` (see `texts_in_context`).
        name, backend, precision, device: say what `model` is; part of the recipe and not used otherwise.
        model: the loaded model.

    Returns:
        One column, `embedding`: fixed_size_list<float32>, normalised if the model says so.
    """
    return vector_table(_encode(texts_in_context(table), model, document_prompt(model), "document"))


def encode_query(text: str, model: "SentenceTransformer") -> list[float]:
    """Embed one text as a query, with the model's prompt for queries if it has one."""
    return _encode([text], model, query_prompt(model), "query")[0].tolist()


def document_prompt(model: "SentenceTransformer") -> str | None:
    """Return what a model wants put before documents; None for nothing."""
    for name in _DOCUMENT_PROMPTS:
        if name in model.prompts:
            return model.prompts[name]
    return _default_prompt(model)


def query_prompt(model: "SentenceTransformer") -> str | None:
    """Return what a model wants put before queries; None for nothing."""
    return model.prompts["query"] if "query" in model.prompts else _default_prompt(model)


def _default_prompt(model: "SentenceTransformer") -> str | None:
    return model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None


def _encode(texts: list[str], model: "SentenceTransformer", prompt: str | None, task: str) -> Vectors:
    import torch

    dimensions = model.get_embedding_dimension()
    if dimensions is None:
        dimensions = len(_encode([""], model, prompt, task)[0])
    vectors = np.zeros((len(texts), dimensions), dtype=np.float32)
    if not texts:
        return vectors
    model.eval()
    features = model.preprocess(texts, prompt=prompt, task=task)
    if _is_padded(features, len(texts)):
        batches = _batches(features, model)
    else:
        alone = (model.preprocess([text], prompt=prompt, task=task) for text in texts)
        batches = ((np.array([row]), batch) for row, batch in enumerate(alone))

    def compute(part: tuple[Indices, Features]) -> None:
        rows, batch = part
        with torch.inference_mode():
            vectors[rows] = _forward(model, batch, task)[: len(rows)]

    with _streams(model) as side_by_side:
        # The list waits for all of them, and raises what one of them raised.
        list(side_by_side(compute, batches))
    return vectors


@contextlib.contextmanager
def _streams(model: "SentenceTransformer") -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield a `map` that on a CPU computes one batch on each core instead of each batch on all cores.

    Threads that share one batch wait for each other at each of its layers: 16 % slower than so on two idle cores,
    and 2.4 times where another process has one of them. The vectors are the same to the bit.
    """
    import torch

    threads = torch.get_num_threads()
    if model.device.type != "cpu" or threads == 1:
        yield map
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def _forward(model: "SentenceTransformer", features: Features, task: str) -> Vectors:
    import torch

    on_device = {
        key: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for key, value in features.items()
    }
    vectors = model(on_device, task=task)["sentence_embedding"].float()
    if _ends_normalised(model):
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    return vectors.cpu().numpy()


def _is_padded(features: Features, count: int) -> bool:
    """Tell whether the features are matrices of one row a text that say which columns are padding."""
    mask = features.get("attention_mask")
    return mask is not None and mask.ndim == 2 and len(mask) == count


def _batches(features: Features, model: "SentenceTransformer") -> Iterator[tuple[Indices, Features]]:
    """Yield batches of one shape for each padded width, with the rows that they begin with."""
    mask = features["attention_mask"].cpu().numpy()
    left_padded = bool((mask[:, 0] < mask[:, -1]).any())
    padding = {"input_ids": getattr(model.tokenizer, "pad_token_id", None) or 0}
    tokens = CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS
    for rows, filled, width in fixed_shapes(mask.sum(axis=1), model.max_seq_length, tokens):
        yield rows, _selected(features, filled, width, left_padded, padding)


def _selected(
    features: Features, rows: Indices, width: int, left_padded: bool, padding: dict[str, int]
) -> Features:
    """Take rows of the matrices among the features, cut or padded to a width on the side where padding is."""
    import torch

    shape = features["attention_mask"].shape
    missing = max(0, width - shape[1])
    result = dict(features)
    for name, value in features.items():
        if isinstance(value, torch.Tensor) and value.shape == shape:
            sides = (missing, 0) if left_padded else (0, missing)
            padded = torch.nn.functional.pad(value[rows], sides, value=padding.get(name, 0))
            result[name] = padded[:, -width:] if left_padded else padded[:, :width]
    return result


def _ends_normalised(model: "SentenceTransformer") -> bool:
    from sentence_transformers.models import Normalize

    return isinstance(model[-1], Normalize)

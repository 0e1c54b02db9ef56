"""Embeddings by a model converted to an OpenVINO graph: what encoding.py does, without torch."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.embedding.arrays import Vectors, vector_table
from stemma.embedding.context import texts_in_context
from stemma.embedding.shapes import CPU_TOKENS, Indices, fixed_shapes

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest
    from tokenizers import Encoding, Tokenizer

# What the encodings of a tokenizer call the inputs of a graph.
_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}

Inputs = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Graph:
    """A sentence-transformers model as one graph, from token ids to the vector that the model gives.

    Attributes:
        compiled: the graph, compiled for this processor.
        tokenizer: truncates at the model's limit and doesn't pad.
        inputs: the graph's inputs, of input_ids, attention_mask and token_type_ids.
        dimensions: length of a vector.
        limit: the model's limit in tokens, special ones counted; None if it has none.
        padding: the id of the padding token.
        left_padded: whether padding goes before the text.
        document_prompt, query_prompt: put before texts.
        streams: how many batches are computed side by side.
    """

    compiled: "CompiledModel"
    tokenizer: "Tokenizer"
    inputs: tuple[str, ...]
    dimensions: int
    limit: int | None = None
    padding: int = 0
    left_padded: bool = False
    document_prompt: str = ""
    query_prompt: str = ""
    streams: int = 1


def encode_graph(
    table: pa.Table, *, name: str, backend: str, precision: str, device: str, model: Graph
) -> pa.Table:
    """Embed texts as documents, as `encode` does; a text's vector depends on the text alone, to the last bit.

    Args:
        table: with the column `text` (string), and perhaps `section` (see `texts_in_context`).
        name, backend, precision, device: say what `model` is; part of the recipe and not used otherwise.
        model: the compiled graph.

    Returns:
        One column, `embedding`: fixed_size_list<float32>, normalised if the model says so.
    """
    texts = [model.document_prompt + text for text in texts_in_context(table)]
    return vector_table(_encode(texts, model))


def encode_graph_query(text: str, model: Graph) -> list[float]:
    """Embed one text as a query, with the model's prompt for queries if it has one."""
    return _encode([model.query_prompt + text], model)[0].tolist()


def _encode(texts: Sequence[str], model: Graph) -> Vectors:
    vectors = np.zeros((len(texts), model.dimensions), dtype=np.float32)
    # Threads of ours: OpenVINO's own queue may wait for ever when it is freed with a callback.
    free: SimpleQueue[InferRequest] = SimpleQueue()
    for _ in range(model.streams):
        free.put(model.compiled.create_infer_request())

    def compute(part: tuple[Indices, Inputs]) -> None:
        rows, batch = part
        request = free.get()
        try:
            request.infer(batch, share_inputs=True)
            vectors[rows] = request.get_output_tensor(0).data[: len(rows)]
        finally:
            free.put(request)

    with ThreadPoolExecutor(model.streams) as pool:
        # The list waits for all of them, and raises what one of them raised.
        list(pool.map(compute, _batches(model.tokenizer.encode_batch_fast(texts), model)))
    return vectors


def _batches(encodings: Sequence["Encoding"], model: Graph) -> Iterator[tuple[Indices, Inputs]]:
    lengths = np.array([len(each) for each in encodings], dtype=np.int64)
    for rows, filled, width in fixed_shapes(lengths, model.limit, CPU_TOKENS):
        chosen = [encodings[row] for row in filled]
        yield rows, {name: _padded(chosen, name, width, model) for name in model.inputs}


def _padded(encodings: Iterable["Encoding"], name: str, width: int, model: Graph) -> npt.NDArray[np.int64]:
    filler = model.padding if name == "input_ids" else 0
    rows = [getattr(encoding, _FIELDS[name]) for encoding in encodings]
    matrix = np.full((len(rows), width), filler, dtype=np.int64)
    for line, row in zip(matrix, rows, strict=True):
        place = slice(width - len(row), width) if model.left_padded else slice(len(row))
        line[place] = row
    return matrix

"""Scores of quality models: a text in, a number out, kept like any metric."""

import math
from collections.abc import Callable, Sequence

import pyarrow as pa

from stemma.errors import StemmaError

INPUTS = pa.schema([pa.field("text", pa.string())])
MODEL_SCORES = pa.map_(pa.string(), pa.float64())
OUTPUTS = pa.schema([pa.field("model_scores", MODEL_SCORES)])

Classifier = Callable[[list[str]], Sequence[float]]


def classify(table: pa.Table, *, name: str, model: Classifier, **_settings: object) -> pa.Table:
    """Score each text with a quality model.

    Args:
        table: column `text` string.
        name: what the score is called.
        model: takes a list of texts and returns a finite number for each; of its text alone, whatever stands beside.

    Returns:
        A table of schema `OUTPUTS`: `model_scores`, a map with the one entry `name` → score.

    Raises:
        StemmaError: the model returned another number of scores than there are texts.
        ValueError: it returned one that is not a finite number.
    """
    texts = table["text"].to_pylist()
    scores = [float(score) for score in model(texts)]
    if len(scores) != len(texts):
        # No fault of a text's: the model would return as many for each of them.
        raise StemmaError(f"the model {name} returned {len(scores)} scores for {len(texts)} texts")
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"the model {name} returned a score that is not a finite number")
    return pa.table({"model_scores": pa.array([[(name, score)] for score in scores], MODEL_SCORES)})

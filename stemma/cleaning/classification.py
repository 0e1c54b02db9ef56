"""Scores of quality models: a text in, a number out, kept like any metric."""

import math
from collections.abc import Callable, Sequence

import pyarrow as pa

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
        ValueError: the model returned another number of scores, or one that is not finite.
    """
    texts = table["text"].to_pylist()
    scores = [float(score) for score in model(texts)]
    if len(scores) != len(texts):
        raise ValueError(f"the model {name} returned {len(scores)} scores for {len(texts)} texts")
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"the model {name} returned a score that is not a finite number")
    return pa.table({"model_scores": pa.array([[(name, score)] for score in scores], MODEL_SCORES)})

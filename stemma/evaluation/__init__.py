"""How good chunks are: by questions whose answers are known, by topic boundaries, and by themselves."""

from stemma.evaluation.intrinsic import intrinsic_scores
from stemma.evaluation.questions import Document, cloze_questions, read_questions
from stemma.evaluation.retrieval import Place, Question, mean_scores, nearest, retrieval_scores
from stemma.evaluation.segmentation import p_k, window_diff

__all__ = [
    "Document",
    "Place",
    "Question",
    "cloze_questions",
    "intrinsic_scores",
    "mean_scores",
    "nearest",
    "p_k",
    "read_questions",
    "retrieval_scores",
    "window_diff",
]

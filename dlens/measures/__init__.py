"""What can be read while a model runs."""

from dlens.measures.cka import CKA
from dlens.measures.cosine import Cosine
from dlens.measures.measure import Cells, Measure, Span, Visit
from dlens.measures.outliers import Outliers
from dlens.measures.pairs import CosinePairs
from dlens.measures.pooling import pool
from dlens.measures.recency import Recency
from dlens.measures.top_tokens import TopTokens

__all__ = [
    "CKA",
    "Cells",
    "Cosine",
    "CosinePairs",
    "Measure",
    "Outliers",
    "Recency",
    "Span",
    "TopTokens",
    "Visit",
    "pool",
]

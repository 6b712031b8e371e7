"""What can be read while a model runs."""

from dlens.measures.attention import Attention
from dlens.measures.cells import Cells
from dlens.measures.cka import CKA
from dlens.measures.cosine import Cosine
from dlens.measures.drift import Drift
from dlens.measures.lens import LogitLens
from dlens.measures.measure import Measure, Span, Visit
from dlens.measures.norms import Norms
from dlens.measures.order import CommitOrder
from dlens.measures.outliers import Outliers
from dlens.measures.pairs import CosinePairs
from dlens.measures.pooling import pool
from dlens.measures.readout import Readout
from dlens.measures.recency import Recency
from dlens.measures.top_tokens import TopTokens

__all__ = [
    "CKA",
    "Attention",
    "Cells",
    "CommitOrder",
    "Cosine",
    "CosinePairs",
    "Drift",
    "LogitLens",
    "Measure",
    "Norms",
    "Outliers",
    "Readout",
    "Recency",
    "Span",
    "TopTokens",
    "Visit",
    "pool",
]

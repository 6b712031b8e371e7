"""What can be read while a model runs."""

from dlens.measures.cka import CKA
from dlens.measures.cosine import Cosine
from dlens.measures.measure import Cells, Measure, Span, Visit
from dlens.measures.outliers import Outliers
from dlens.measures.pairs import CosinePairs
from dlens.measures.pooling import pool
from dlens.measures.recency import Recency

__all__ = ["CKA", "Cells", "Cosine", "CosinePairs", "Measure", "Outliers", "Recency", "Span", "Visit", "pool"]

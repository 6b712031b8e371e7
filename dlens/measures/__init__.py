"""What can be read while a model runs."""

from dlens.measures.cosine import Cosine
from dlens.measures.measure import Cells, Measure, Span, Visit
from dlens.measures.outliers import Outliers
from dlens.measures.pooling import pool

__all__ = ["Cells", "Cosine", "Measure", "Outliers", "Span", "Visit", "pool"]

"""What can be read while a model runs."""

from dlens.measures.attention import Attention
from dlens.measures.base.arrays import DropsChannels
from dlens.measures.base.cells import Cells
from dlens.measures.base.means import PositionMeans, PromptMeans
from dlens.measures.base.measure import Measure, Span, Visit
from dlens.measures.base.pooling import pool
from dlens.measures.base.readout import Readout
from dlens.measures.cka import CKA
from dlens.measures.commit_order import CommitOrder
from dlens.measures.cosine import Cosine
from dlens.measures.cosine_pairs import CosinePairs
from dlens.measures.drift import Drift
from dlens.measures.effective_rank import EffectiveRank
from dlens.measures.features import Features
from dlens.measures.geometry.curvature import Curvature
from dlens.measures.geometry.matrix_entropy import MatrixEntropy
from dlens.measures.logit_lens import LogitLens
from dlens.measures.norms import Norms
from dlens.measures.outliers import Outliers
from dlens.measures.recency import Recency
from dlens.measures.sink_values import SinkValues
from dlens.measures.top_tokens import TopTokens

__all__ = [
    "CKA",
    "Attention",
    "Cells",
    "CommitOrder",
    "Cosine",
    "CosinePairs",
    "Curvature",
    "Drift",
    "DropsChannels",
    "EffectiveRank",
    "Features",
    "LogitLens",
    "MatrixEntropy",
    "Measure",
    "Norms",
    "Outliers",
    "PositionMeans",
    "PromptMeans",
    "Readout",
    "Recency",
    "SinkValues",
    "Span",
    "TopTokens",
    "Visit",
    "pool",
]

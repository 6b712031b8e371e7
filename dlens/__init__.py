"""dlens: an interpretability toolkit for diffusion and autoregressive language models."""

from dlens import samplers
from dlens.findings.profile import Profile, profile
from dlens.findings.scheduling import SkipSchedule, plan_schedule
from dlens.findings.skipping import SkipPlan, plan_skip
from dlens.measures.cka import CKA
from dlens.measures.cosine import Cosine
from dlens.measures.measure import Measure
from dlens.measures.outliers import Outliers
from dlens.measures.recency import Recency
from dlens.measures.top_tokens import TopTokens
from dlens.models.family import Family, Fill, Layout, Site
from dlens.models.load import load
from dlens.models.model import Model
from dlens.models.registry import register_family
from dlens.tracing.chain import Trace, trace
from dlens.tracing.errors import Cancelled, NeverFired, UnfiredWarning
from dlens.tracing.record import Record
from dlens.tracing.store import load_record

__all__ = [
    "CKA",
    "Cancelled",
    "Cosine",
    "Family",
    "Fill",
    "Layout",
    "Measure",
    "Model",
    "NeverFired",
    "Outliers",
    "Profile",
    "Recency",
    "Record",
    "Site",
    "SkipPlan",
    "SkipSchedule",
    "TopTokens",
    "Trace",
    "UnfiredWarning",
    "load",
    "load_record",
    "plan_schedule",
    "plan_skip",
    "profile",
    "register_family",
    "samplers",
    "trace",
]

"""dlens: an interpretability toolkit for diffusion and autoregressive language models."""

from dlens import samplers
from dlens.findings.profile import Profile, profile
from dlens.measures.cosine import Cosine
from dlens.measures.measure import Measure
from dlens.measures.outliers import Outliers
from dlens.models.family import Family, Fill, Layout, Site
from dlens.models.load import load
from dlens.models.model import Model
from dlens.models.registry import register_family
from dlens.tracing.chain import Trace, trace
from dlens.tracing.errors import Cancelled, NeverFired, UnfiredWarning
from dlens.tracing.record import Record
from dlens.tracing.store import load_record

__all__ = [
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
    "Record",
    "Site",
    "Trace",
    "UnfiredWarning",
    "load",
    "load_record",
    "profile",
    "register_family",
    "samplers",
    "trace",
]

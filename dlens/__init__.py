"""dlens: an interpretability toolkit for diffusion and autoregressive language models.

The main calls, each with an example in its own help:

    model = dlens.load("trio/diffusion")   # or a hub id, a folder, a transformers module
    trace = dlens.trace(model)             # .skip .swap .repeat .ablate .steer .patch .hook .capture .measure .apply
    record = trace.generate("Once upon a") # or .forward(...): text, captures, measures, FLOPs
    record.save("run")                     # dlens.load_record("run") reads it without the model
    dlens.profile(model)                   # what each layer changes; dlens.compare for several models
    dlens.plan_skip(model, 2)              # which blocks to skip
    dlens.retention(model, [5, 9])         # how much of a task's accuracy is left without them
    dlens.report(["trio/ar", "trio/diffusion"], "report.html")

Beside these: `dlens.samplers` (how tokens are decoded), `dlens.tasks` (problems with exact scores),
`dlens.show.figures` (plotly figures), `dlens.widgets` (for notebooks, loaded when first used).
"""

from typing import TYPE_CHECKING, Any

from dlens import samplers, tasks
from dlens.errors import Cancelled, NeverFired, UnfiredWarning, UnprovedWarning, VerificationError
from dlens.findings.effects.collapse import Collapse, collapse
from dlens.findings.effects.disruption import Disruption, disruption
from dlens.findings.effects.phases import Phases, phases
from dlens.findings.effects.retention import Retention, retention
from dlens.findings.layers.compare import Comparison, compare
from dlens.findings.layers.probe_layers import probe_layers
from dlens.findings.layers.profile import Profile, profile
from dlens.findings.skipping.plan_schedule import plan_schedule
from dlens.findings.skipping.plan_skip import SkipPlan, plan_skip
from dlens.findings.skipping.skip_schedule import SkipSchedule
from dlens.measures.attention import Attention
from dlens.measures.base.measure import Measure
from dlens.measures.cka import CKA
from dlens.measures.commit_order import CommitOrder
from dlens.measures.cosine import Cosine
from dlens.measures.drift import Drift
from dlens.measures.effective_rank import EffectiveRank
from dlens.measures.logit_lens import LogitLens
from dlens.measures.norms import Norms
from dlens.measures.outliers import Outliers
from dlens.measures.recency import Recency
from dlens.measures.top_tokens import TopTokens
from dlens.models.families.registry import register_family
from dlens.models.family import Family, Fill, Layout, Site
from dlens.models.load import load
from dlens.models.model import Model
from dlens.ops.base.edit import Edit
from dlens.ops.base.op import Op, Structure
from dlens.show.report.report import report
from dlens.tracing.chain import Trace, trace
from dlens.tracing.records.record import Record
from dlens.tracing.records.store import load_record

if TYPE_CHECKING:
    from dlens import widgets as widgets
else:

    def __getattr__(name: str) -> Any:
        if name == "widgets":
            from importlib import import_module

            return import_module("dlens.widgets")
        raise AttributeError(f"module 'dlens' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), "widgets"})


__all__ = [
    "CKA",
    "Attention",
    "Cancelled",
    "Collapse",
    "Comparison",
    "CommitOrder",
    "Cosine",
    "Disruption",
    "Drift",
    "Edit",
    "EffectiveRank",
    "Family",
    "Fill",
    "Layout",
    "LogitLens",
    "Measure",
    "Model",
    "NeverFired",
    "Norms",
    "Op",
    "Outliers",
    "Phases",
    "Profile",
    "Recency",
    "Record",
    "Retention",
    "Site",
    "SkipPlan",
    "SkipSchedule",
    "Structure",
    "TopTokens",
    "Trace",
    "UnfiredWarning",
    "UnprovedWarning",
    "VerificationError",
    "collapse",
    "compare",
    "disruption",
    "load",
    "load_record",
    "phases",
    "plan_schedule",
    "plan_skip",
    "probe_layers",
    "profile",
    "register_family",
    "report",
    "retention",
    "samplers",
    "tasks",
    "trace",
]

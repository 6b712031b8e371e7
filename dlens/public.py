"""The public names of dlens, from where they live; `import dlens` loads this file when one of them is first used."""

from __future__ import annotations

from dlens import caches, metrics, samplers, tasks, workers
from dlens.compression.compress import compress
from dlens.compression.recipe import Recipe
from dlens.compression.spectral_alpha import spectral_alpha
from dlens.errors import Cancelled, NeverFired, UnfiredWarning, UnprovedWarning, VerificationError
from dlens.evaluation.evaluate import Evaluation, evaluate
from dlens.features.autoencoder import SparseAutoencoder
from dlens.features.load_sae import load_sae
from dlens.features.train_sae import train_sae
from dlens.findings.circuits.attribute import Attribution, attribute
from dlens.findings.circuits.circuit import Circuit, circuit
from dlens.findings.circuits.heads import attention_flow, pattern_stability
from dlens.findings.circuits.logit_attribution import logit_attribution, part_lens
from dlens.findings.circuits.pairs import Pairs, pairs
from dlens.findings.effects.collapse import Collapse, collapse
from dlens.findings.effects.disruption import Disruption, disruption
from dlens.findings.effects.phases import Phases, phases
from dlens.findings.effects.retention import Retention, retention
from dlens.findings.effects.robustness import Robustness, robustness
from dlens.findings.features.activation_rows import activation_rows
from dlens.findings.features.direction import direction
from dlens.findings.features.feature_steps import feature_steps
from dlens.findings.features.plan_steering import SteeringSchedule, plan_steering
from dlens.findings.features.probe import probe
from dlens.findings.features.splice_loss import SpliceLoss, splice_loss
from dlens.findings.features.steering import Steering, steering
from dlens.findings.layers.compare import Comparison, compare
from dlens.findings.layers.probe_layers import probe_layers
from dlens.findings.layers.profile import Profile, profile
from dlens.findings.layers.view_metrics import view_metrics
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
from dlens.measures.features import Features
from dlens.measures.geometry.curvature import Curvature
from dlens.measures.geometry.matrix_entropy import MatrixEntropy
from dlens.measures.logit_lens import LogitLens
from dlens.measures.norms import Norms
from dlens.measures.outliers import Outliers
from dlens.measures.recency import Recency
from dlens.measures.sink_values import SinkValues
from dlens.measures.top_tokens import TopTokens
from dlens.models.compression import Compression
from dlens.models.families.registry import register_family
from dlens.models.family import Family, Fill, Layout, Site
from dlens.models.load import load
from dlens.models.model import Model
from dlens.ops.base.edit import Edit
from dlens.ops.base.op import Op, Structure
from dlens.show.report.report import report
from dlens.sweeps.sweep import sweep
from dlens.sweeps.table import Sweep, load_sweep
from dlens.sweeps.variant import Variant, grid
from dlens.tracing.chain import Trace, trace
from dlens.tracing.records.record import Record
from dlens.tracing.records.store import load_record

__all__ = [
    "CKA",
    "Attention",
    "Attribution",
    "Cancelled",
    "Circuit",
    "Collapse",
    "Comparison",
    "Compression",
    "CommitOrder",
    "Cosine",
    "Curvature",
    "Disruption",
    "Drift",
    "Edit",
    "Evaluation",
    "EffectiveRank",
    "Family",
    "Features",
    "Fill",
    "Layout",
    "LogitLens",
    "MatrixEntropy",
    "Measure",
    "Model",
    "NeverFired",
    "Norms",
    "Op",
    "Outliers",
    "Pairs",
    "Phases",
    "Profile",
    "Recency",
    "Recipe",
    "Record",
    "Retention",
    "Robustness",
    "SinkValues",
    "Site",
    "SkipPlan",
    "SkipSchedule",
    "SparseAutoencoder",
    "SpliceLoss",
    "Steering",
    "SteeringSchedule",
    "Structure",
    "Sweep",
    "TopTokens",
    "Trace",
    "UnfiredWarning",
    "UnprovedWarning",
    "Variant",
    "VerificationError",
    "activation_rows",
    "attention_flow",
    "circuit",
    "attribute",
    "caches",
    "collapse",
    "compare",
    "compress",
    "direction",
    "disruption",
    "evaluate",
    "feature_steps",
    "grid",
    "load",
    "load_record",
    "load_sae",
    "load_sweep",
    "logit_attribution",
    "metrics",
    "part_lens",
    "pattern_stability",
    "pairs",
    "phases",
    "plan_schedule",
    "plan_skip",
    "plan_steering",
    "probe",
    "probe_layers",
    "profile",
    "register_family",
    "report",
    "retention",
    "robustness",
    "samplers",
    "spectral_alpha",
    "splice_loss",
    "steering",
    "sweep",
    "tasks",
    "trace",
    "train_sae",
    "view_metrics",
    "workers",
]

"""The three ways to score cells: values exchanged one by one, first-order effects, and averaged gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.findings.circuits.cells import Blend, Cells, PatchCells
from dlens.findings.circuits.contrasts import Contrast
from dlens.findings.scores.batches import batched
from dlens.metrics import Metric, MetricStep
from dlens.tracing.chain import Trace
from dlens.tracing.planning.alignment import aligned
from dlens.tracing.records.record import Record

__all__ = ["METHODS", "Question", "Scores", "metric_values"]


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        chain: the model, with operations if any.
        cells: what the scores are of.
        metric: of the logits, one number a pair.
        steps: mixtures of the two texts, for "integrated".
        batch_size: rows of a forward, for "patching".
    """

    chain: Trace
    cells: Cells
    metric: Metric
    steps: int
    batch_size: int


@dataclass(frozen=True)
class Scores:
    """What a method found.

    Args:
        by_pair: a score for each pair and cell.
        clean, corrupted: the metric on the texts as they are.
    """

    by_pair: Float[Tensor, "pair ..."]
    clean: Float[Tensor, " pair"]
    corrupted: Float[Tensor, " pair"]


def by_patching(question: Question, pairs: Contrast) -> Scores:
    """Exact: m(clean run with the cell's values from the corrupted one) - m(clean run).

    Cells are rows of one batch, each with all pairs. A cell in which the runs are equal keeps the clean run as it is.
    """
    cells, chain = question.cells, question.chain.capture("logits")
    both = [
        chain.capture(cells.at, layers=cells.layers or None).forward(rows) for rows in (pairs.clean, pairs.corrupted)
    ]
    clean, corrupted = (metric_values(chain, record, question.metric) for record in both)
    own, other = (record[cells.at] for record in both)
    found = cells.summed(torch.zeros_like(own, dtype=torch.float64))
    for part in batched(cells.differing(own, other), max(1, question.batch_size // len(pairs))):
        # Only the layers of these cells are visited.
        places = tuple(sorted({cells.layers[cell[0]] for cell in part})) if cells.layers else None
        patch = PatchCells(at=cells.at, layers=places, cells=cells, which=tuple(part), source=other)
        record = chain.apply(patch).forward(pairs.clean * len(part))
        for cell, values in zip(part, metric_values(chain, record, question.metric, len(part)), strict=True):
            found[(slice(None), *cell)] = values.double() - clean.double()
    return Scores(found, clean, corrupted)


def by_attribution(question: Question, pairs: Contrast) -> Scores:
    """First order: the sum of (corrupted - clean) times the gradient of the metric in the clean run."""
    return _first_order(question, pairs, 1)


def by_integration(question: Question, pairs: Contrast) -> Scores:
    """The same with the gradient averaged over mixtures of the two texts' embeddings.

    Step k of K keeps the share k / K of the clean embedding, so that the last is the clean run: the sum of Hanna et
    al. (arXiv:2403.17806).
    """
    return _first_order(question, pairs, question.steps)


METHODS: Mapping[str, Callable[[Question, Contrast], Scores]] = MappingProxyType(
    {"patching": by_patching, "attribution": by_attribution, "integrated": by_integration}
)
"""The word that a user writes -> the way to score."""


def _first_order(question: Question, pairs: Contrast, steps: int) -> Scores:
    cells, chain, metric = question.cells, question.chain, question.metric
    kept = chain.capture(cells.at, layers=cells.layers or None)
    mixing = kept.capture("embed") if steps > 1 and cells.at != "embed" else kept
    corrupted = mixing.capture("logits").forward(pairs.corrupted)
    slopes = torch.zeros((), dtype=torch.float64)
    for step in range(1, steps):
        mixed = chain.apply(Blend(source=corrupted["embed"], share=step / steps))
        record = mixed.gradient(cells.at, of=metric, layers=cells.layers or None).forward(pairs.clean)
        slopes = slopes + record.gradients[cells.at].double()
    clean = kept.gradient(cells.at, of=metric, layers=cells.layers or None).forward(pairs.clean)
    slopes = (slopes + clean.gradients[cells.at].double()) / steps
    moved = corrupted[cells.at].double() - clean[cells.at].double()
    assert clean.metric is not None
    return Scores(cells.summed(moved * slopes), clean.metric.cpu(), metric_values(chain, corrupted, metric))


def metric_values(chain: Trace, record: Record, metric: Metric, groups: int | None = None) -> Tensor:
    """A metric of a forward's captured logits: [batch], or [group, batch] where rows come in groups.

    Args:
        chain: whose model ran.
        record: of a forward that captured "logits".
        metric: gets each group by itself.
        groups: how many groups of equally many rows there are; None is one, without an axis of its own.
    """
    model = chain.model
    ids, real = record.tokens.to(model.device), ~record.is_pad.to(model.device)
    has_noise = chain.target.has_noise
    masked = (ids == model.family.mask_token_id) & real if has_noise else torch.zeros_like(real)
    logits = record["logits"].to(model.device)
    logits = aligned(logits, model.family.shift, real) if has_noise else logits
    noise = tuple((masked.sum(-1).double() / real.sum(-1)).tolist())
    values, size = [], len(ids) // (groups or 1)
    for start in range(0, len(ids), size):
        own = slice(start, start + size)
        step = MetricStep(0, ids[own], real[own], masked[own], noise[own] if has_noise else None)
        values.append(_checked(metric(logits[own], step), size))
    return torch.stack(values) if groups is not None else values[0]


def _checked(value: object, rows: int) -> Tensor:
    if isinstance(value, Tensor) and value.shape == (rows,):
        return value.detach().cpu()
    came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise ValueError(
        f"the metric gave {came}; expected [{rows}], one number a row; average over positions, not over rows"
    )

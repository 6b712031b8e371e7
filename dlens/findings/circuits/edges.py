"""Scores of edges by gradients: edge attribution patching, plain and with integrated gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.axes import Resid
from dlens.findings.circuits.graph import HEAD_READS, HeadRead, graph_of
from dlens.findings.circuits.streams import Streams, device_of, projected
from dlens.metrics import Metric
from dlens.models.model import Model
from dlens.tracing.chain import Trace
from dlens.tracing.records.record import Record

__all__ = ["edge_scores"]


def edge_scores(
    base: Trace, ids: Sequence[Sequence[int]], clean: Streams, corrupted: Streams, metric: Metric, steps: int
) -> Float[Tensor, "writer reader"]:
    """Estimate how a metric changes when one edge alone carries what it carries in the corrupted run.

    The score is the sum over positions and channels of (writer in the corrupted run - writer in the clean run) times
    d metric / d input of the reader. The gradient is the mean over `steps` runs whose embeddings lie at k / steps of
    the way from the corrupted to the clean run, k = 1 to `steps`; with one step it is that of the clean run.

    Edge attribution patching is of Syed et al. (arXiv:2310.10348), the mean gradient of Hanna et al.
    (arXiv:2403.17806).

    Args:
        base: the model, without operations.
        ids: token ids of the clean run.
        clean, corrupted: both runs.
        metric: what is asked of the logits.
        steps: how many runs the gradient is averaged over.

    Returns:
        The sum over rows; 0 where there is no edge.
    """
    graph = graph_of(base.model)
    differ = _wide(corrupted.writers) - _wide(clean.writers)
    found = torch.zeros(graph.exists.shape, dtype=differ.dtype)
    for step in range(1, steps + 1):
        embedded = torch.lerp(corrupted.writers[0], clean.writers[0], step / steps)
        record = _differentiated(base, ids, embedded, metric)
        for layer in range(graph.n_layers):
            earlier = differ[: graph.before_heads(layer)]
            for read in HEAD_READS:
                inputs = _inputs_of_heads(base.model, layer, read, record)
                for reader, gradient in enumerate(inputs, graph.heads(layer, read).start):
                    found[: len(earlier), reader] += _products(earlier, gradient)
            # What reaches the middle of a block goes on beside the MLP and through it.
            mid, post = (_wide(record.gradients[point][layer]) for point in ("resid_mid", "resid_post"))
            earlier = differ[: graph.before_mlp(layer)]
            found[: len(earlier), graph.mlp(layer)] += _products(earlier, mid - post)
        found[:, -1] += _products(differ, record.gradients["resid_post"][-1])
    return found / steps


def _differentiated(base: Trace, ids: Sequence[Sequence[int]], embedded: Resid, metric: Metric) -> Record:
    """A run from other embeddings, with the gradients at all readers."""
    device = base.model.device
    chain = base.hook("blocks.0.hook_resid_pre", lambda value, hook: embedded.to(device)).capture("resid_pre")
    return chain.gradient("q", "k", "v", "resid_mid", "resid_post", of=metric).forward([list(row) for row in ids])


def _inputs_of_heads(model: Model, layer: int, read: HeadRead, record: Record) -> Iterator[Resid]:
    """The gradient at the input of each head, pulled back through projection and norm."""
    device = device_of(model, layer)
    stream = record["resid_pre"][layer].to(device).requires_grad_()
    given = record.gradients[read][layer].to(device)
    with torch.enable_grad():
        heads = projected(model, layer, read, stream)
    for head in range(heads.shape[2]):
        (gradient,) = torch.autograd.grad(heads[:, :, head], stream, given[:, :, head], retain_graph=True)
        yield gradient.cpu()


def _products(writers: Float[Tensor, "writer batch position d_model"], gradient: Resid) -> Float[Tensor, " writer"]:
    return writers.flatten(1) @ _wide(gradient).flatten()


def _wide(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

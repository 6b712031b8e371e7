"""A run in which chosen edges carry what they carry, and all others what they carry in another run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import Resid
from dlens.findings.circuits.graph import HEAD_READS, Graph, HeadRead, graph_of
from dlens.findings.circuits.streams import Streams, projected
from dlens.metrics import Metric
from dlens.models.model import Model
from dlens.tracing.chain import Trace

__all__ = ["rewired_metric"]


def rewired_metric(
    base: Trace,
    ids: Sequence[Sequence[int]],
    other: Streams,
    kept: Bool[Tensor, "writer reader"],
    metric: Metric,
) -> Float[Tensor, " batch"]:
    """The metric of a run of which only some edges are its own.

    Every reader gets the stream that it has in the other run, plus, for each edge kept, what the writer gives here
    beyond what it gives there; so effects go on along kept edges alone.

    Args:
        base: the model, without operations.
        ids: token ids of each row.
        other: the run that the other edges are patched from.
        kept: the edges that are not.
        metric: what is asked of the logits.
    """
    wires = _Wires(base.model, graph_of(base.model), kept.float(), other)
    last = f"blocks.{base.model.n_layers - 1}.hook_resid_post"
    chain = base.hook("blocks.0.hook_resid_pre", wires.embed)
    for read in HEAD_READS:
        chain = chain.hook(read, partial(wires.heads, read))
    chain = chain.hook("result", wires.result).hook("resid_mid", wires.mid).hook("mlp_out", wires.mlp_out)
    record = chain.hook(last, wires.last).gradient(last, of=metric).forward([list(row) for row in ids])
    assert record.metric is not None
    return record.metric


@final
@dataclass(repr=False)
class _Wires:
    """Hook functions of one run, which gather what its writers give beyond those of the other run.

    Args:
        model: what runs.
        graph: its edges.
        kept: 1 for an edge that is kept, 0 for one that is patched.
        other: the other run.
    """

    model: Model
    graph: Graph
    kept: Float[Tensor, "writer reader"]
    other: Streams
    gained: Float[Tensor, "writer batch position d_model"] = field(init=False)

    def __post_init__(self) -> None:
        self.gained = torch.zeros_like(self.other.writers)

    def embed(self, value: Tensor, hook: Any) -> None:
        self._gain(0, value[None])

    def heads(self, read: HeadRead, value: Tensor, hook: Any) -> Tensor:
        """The queries, keys or values that each head makes of its own stream."""
        readers = self.graph.heads(hook.layer, read)
        streams = self._streams(self.other.pre[hook.layer], self.graph.before_heads(hook.layer), readers)
        made = [
            projected(self.model, hook.layer, read, stream.to(value))[:, :, head] for head, stream in enumerate(streams)
        ]
        return torch.stack(made, dim=2)

    def result(self, value: Tensor, hook: Any) -> None:
        heads = rearrange(value, "batch position head d_model -> head batch position d_model")
        self._gain(self.graph.before_heads(hook.layer), heads)

    def mid(self, value: Tensor, hook: Any) -> Tensor:
        """What the MLP reads; what it is added to reaches no reader."""
        reader = self.graph.mlp(hook.layer)
        before = self.graph.before_mlp(hook.layer)
        return self._streams(self.other.mid[hook.layer], before, slice(reader, reader + 1))[0].to(value)

    def mlp_out(self, value: Tensor, hook: Any) -> None:
        self._gain(self.graph.before_mlp(hook.layer), value[None])

    def last(self, value: Tensor, hook: Any) -> Tensor:
        return self._streams(self.other.last, len(self.kept), slice(-1, None))[0].to(value)

    def _gain(self, first: int, values: Float[Tensor, "writer batch position d_model"]) -> None:
        writers = slice(first, first + len(values))
        self.gained[writers] = values.cpu() - self.other.writers[writers]

    def _streams(self, stream: Resid, before: int, readers: slice) -> Float[Tensor, "reader batch position d_model"]:
        """The stream of each of some readers, from the writers before them."""
        kept, gained = self.kept[:before, readers].to(stream), self.gained[:before]
        return stream + einsum(kept, gained, "writer reader, writer b p d -> reader b p d")

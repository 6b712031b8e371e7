"""What circuits read of runs: what every writer writes, what every reader reads, and what heads make of a stream.

A circuit takes it that the stream is the sum of what was written to it, and that a head's queries, keys and values are
projections of the normed stream: `require_sums` proves both for a model before anything is said of its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from dlens.axes import Resid
from dlens.findings.circuits.graph import HEAD_READS, HeadRead
from dlens.metrics import Metric
from dlens.models.model import Model
from dlens.models.wrapper import envoy_at
from dlens.tracing.chain import Trace

__all__ = ["Streams", "device_of", "projected", "require_sums", "streams_of"]

# How far sums in another order may differ, in roundings of the largest number.
_ROUNDINGS = 512


@final
@dataclass(frozen=True, eq=False)
class Streams:
    """One run, as a circuit sees it.

    Args:
        writers: what each writer adds to the stream; the bias after attention belongs to none.
        pre, mid: what heads and MLPs read, by layer.
        last: what leaves the last block.
        metric: of each row.
    """

    writers: Float[Tensor, "writer batch position d_model"]
    pre: Float[Tensor, "layer batch position d_model"]
    mid: Float[Tensor, "layer batch position d_model"]
    last: Resid
    metric: Float[Tensor, " batch"]


def streams_of(base: Trace, ids: Sequence[Sequence[int]], metric: Metric) -> Streams:
    """Run a model and keep what a circuit reads.

    Args:
        base: the model, without operations.
        ids: token ids of each row.
        metric: what is asked of the logits.

    Raises:
        MemoryError: so many rows take more memory than captures may.
    """
    last = f"blocks.{base.model.n_layers - 1}.hook_resid_post"
    chain = base.capture("resid_pre", "result", "resid_mid", "mlp_out", last).gradient(last, of=metric)
    try:
        record = chain.forward([list(row) for row in ids])
    except MemoryError as error:
        raise MemoryError(
            f"{len(ids)} prompts a forward of {base.model.name} take more memory than captures may; expected fewer at "
            f"once; pass a smaller batch_size"
        ) from error
    heads = rearrange(record["result"], "layer batch position head d_model -> layer head batch position d_model")
    written = torch.cat([heads, record["mlp_out"][:, None]], dim=1).flatten(0, 1)
    pre = record["resid_pre"]
    assert record.metric is not None
    return Streams(torch.cat([pre[:1], written]), pre, record["resid_mid"], record[last], record.metric)


def projected(model: Model, layer: int, read: HeadRead, stream: Resid) -> Float[Tensor, "batch position head d_head"]:
    """The queries, keys or values that the heads of a layer make of a stream.

    Args:
        model: whose norm and projection run.
        layer: the block.
        read: which of the three.
        stream: what enters the norm before attention.
    """
    # nnsight's view of a module, as its hooks would take a call of the module itself for part of the run around it.
    block, sites = envoy_at(model.root, f"{model.layout.blocks}.{layer}"), model.layout.at(layer).sites
    norm, projection = (envoy_at(block, sites[point].path) for point in ("ln1_scale", read))
    n_heads = model.n_heads if read == "q" else model.n_kv_heads
    return sites[read].split(projection(norm(stream)), n_heads)


def require_sums(base: Trace, rows: Sequence[Sequence[int]]) -> None:
    """Refuse a model of which edges would say something else than they seem to.

    Args:
        base: the model, without operations.
        rows: two rows of equal length, of other tokens.

    Raises:
        ValueError: heads are no projections of the normed stream, or what they write does not add up.
    """
    model = base.model
    chain = base.capture("resid_pre", "q", "k", "v", "result", "resid_mid", "mlp_out", "resid_post")
    record = chain.forward([list(row) for row in rows])
    pre, mid, post = (record[point] for point in ("resid_pre", "resid_mid", "resid_post"))
    for layer in range(model.n_layers):
        for read in HEAD_READS:
            _require(
                model,
                f"{read} of layer {layer} is a projection of the normed stream",
                _apart(model, layer, read, pre[layer]),
                record[read][layer],
            )
        # What the projection's bias adds belongs to no head and is the same everywhere.
        rest = mid[layer] - pre[layer] - record["result"][layer].sum(2)
        _require(
            model, f"attention of layer {layer} adds the sum of its heads", mid[layer] - rest + rest[:1, :1], mid[layer]
        )
        _require(model, f"layer {layer} adds the sum of its halves", mid[layer] + record["mlp_out"][layer], post[layer])


@torch.no_grad()
def _apart(model: Model, layer: int, read: HeadRead, stream: Resid) -> Tensor:
    return projected(model, layer, read, stream.to(device_of(model, layer))).cpu()


def device_of(model: Model, layer: int) -> torch.device:
    """Where a block computes."""
    return next(model.blocks[layer].parameters()).device


def _require(model: Model, what: str, found: Tensor, value: Tensor) -> None:
    tolerance = _ROUNDINGS * torch.finfo(value.dtype).eps * float(value.abs().max())
    if not bool(((found - value).abs() <= tolerance).all()):
        raise ValueError(
            f"{model.name} is no model of which it holds that {what}; expected blocks of attention and MLP without "
            f"norms after them, as edges are defined by such sums; use dlens.attribute, which needs none"
        )

"""What heads attend to over the steps of a run, and how much their patterns stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from dlens.axes import STATES
from dlens.checks import refuse
from dlens.findings.scores.intervals import mean_interval
from dlens.tracing.records.record import Record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["attention_flow", "pattern_stability"]


def attention_flow(record: Record) -> xr.Dataset:
    """How much of their attention tokens of one kind give to tokens of another, by step, layer and head.

    Of each query its attention to all keys of a kind is summed, then averaged over the queries of a kind in a prompt,
    then over prompts.

    Args:
        record: of a denoising run that captured `pattern`.

    Returns:
        Over step, layer, head, state (of the query) and source (the state of the keys): "share", with "low" and "high",
        its 95 % interval over prompts (NaN of a single one); and "keys", the share of all keys that are of that kind,
        which is what a head that attends evenly gives. NaN where a step has no such queries.

    Raises:
        ValueError: another kind of run, or a record without patterns.

    Examples:
        >>> import dlens
        >>> record = dlens.trace("trio/diffusion").capture("pattern", layers=[3]).generate("Once upon a time", 4)
        >>> flow = dlens.attention_flow(record)["share"]
        >>> flow.dims, round(float(flow.sel(layer=3, head=0, state="masked").sum("source")[0]), 3)
        (('step', 'layer', 'head', 'state', 'source'), 1.0)
    """
    import xarray as xr

    pattern, steps, layers = _patterns(record)
    states = torch.stack([_states(record, step) for step in steps])
    kinds = torch.stack([states == kind for kind in range(len(STATES))], dim=-1).double()
    given = einsum(pattern, kinds, "s l b h q k, s b k source -> s l b h q source")
    total = einsum(given, kinds, "s l b h q source, s b q state -> b s l h state source")
    queries = rearrange(kinds.sum(2), "s b state -> b s 1 1 state 1")
    mean, low, high = mean_interval(torch.where(queries > 0, total / queries.clamp(min=1), torch.nan).numpy())
    keys = (kinds.sum(2) / kinds.sum((2, 3))[..., None]).mean(1)
    dims = ("step", "layer", "head", "state", "source")
    return xr.Dataset(
        {"share": (dims, mean), "low": (dims, low), "high": (dims, high), "keys": (("step", "source"), keys.numpy())},
        coords={
            "step": list(steps),
            "layer": list(layers),
            "head": range(pattern.shape[3]),
            "state": list(STATES),
            "source": list(STATES),
        },
        attrs={
            "estimator": "sum over keys of a kind, mean over queries of a kind, mean over prompts",
            "n": pattern.shape[2],
        },
    )


def pattern_stability(record: Record) -> xr.Dataset:
    """How alike a head's patterns at two captured steps in a row are: their cosine, averaged over steps and prompts.

    Args:
        record: of a denoising run that captured `pattern` at two steps at least.

    Returns:
        Over layer and head: "stability", with "low" and "high", its 95 % interval over prompts (NaN of a single one);
        and "others", the same of a head's pattern and those that the other heads of its layer have one step later, as a
        control (NaN with a single head).

    Raises:
        ValueError: another kind of run, a record without patterns, or of a single step.

    Examples:
        >>> import dlens
        >>> record = dlens.trace("trio/diffusion").capture("pattern", layers=[3]).generate("Once upon a time", 4)
        >>> found = dlens.pattern_stability(record)
        >>> found["stability"].dims, bool((found["stability"] > found["others"]).all())
        (('layer', 'head'), True)
    """
    import xarray as xr

    pattern, steps, layers = _patterns(record)
    if len(steps) < 2:
        raise ValueError(
            f"the record holds patterns of steps {list(steps)} alone; expected two steps at least; capture more, as in "
            f".capture('pattern', steps=range(8))"
        )
    flat = torch.nn.functional.normalize(rearrange(pattern, "s l b h q k -> s l b h (q k)"), dim=-1)
    alike = einsum(flat[:-1], flat[1:], "s l b h n, s l b other n -> b l h other s").mean(-1)
    own = alike.diagonal(dim1=-2, dim2=-1)
    mean, low, high = mean_interval(own.numpy())
    n_heads = pattern.shape[3]
    # A single head has no others: 0 / 0.
    others = (alike.sum(-1) - own).mean(0) / (n_heads - 1 or torch.nan)
    dims = ("layer", "head")
    return xr.Dataset(
        {"stability": (dims, mean), "low": (dims, low), "high": (dims, high), "others": (dims, others.numpy())},
        coords={"layer": list(layers), "head": range(n_heads), "step": list(steps)},
        attrs={"estimator": "cosine of patterns at two captured steps in a row", "n": pattern.shape[2]},
    )


def _patterns(
    record: Record,
) -> tuple[Float[Tensor, "step layer batch head position position_b"], tuple[int, ...], tuple[int, ...]]:
    """The patterns of a denoising run with its steps and layers; those at padding are zero."""
    if not isinstance(record, Record):
        refuse("record", record, "a record", "pass what dlens.trace(model).capture('pattern').generate(...) returned")
    kept = record.captured.get("pattern")
    if record.canvas is None or kept is None or "layer" not in kept.dims:
        held = ", ".join(record) or "nothing"
        raise ValueError(
            f"a record of a {record.kind} run that holds {held}; expected a denoising run with the patterns of its "
            f"layers; write dlens.trace(model).capture('pattern').generate(...)"
        )
    pattern = kept.values.double()
    return pattern * (~record.is_pad)[None, None, :, None, None, :], kept.steps, kept.layers


def _states(record: Record, step: int) -> Int[Tensor, "batch position"]:
    """What stood at each position when a step started, as an index into `STATES`; -1 at padding."""
    assert record.canvas is not None
    generated = record.committed_at >= 0
    masks = record.canvas[0][generated]
    masked = generated & (record.canvas[step] == (masks[0] if len(masks) else -1))
    state = torch.where(generated, STATES.index("decoded"), STATES.index("prompt"))
    state = state.masked_fill(masked, STATES.index("masked"))
    return state.masked_fill(record.is_pad, -1)

"""One or two passes over the stream on CUDA, where plain torch takes a dozen; imported only where Triton runs."""

# Triton comes with torch for CUDA alone, and gives its kernels no types.
# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dlens import axes

__all__ = ["add_cosine", "add_outliers", "try_out"]


# How many states a position may have (`axes.STATES` are their names), and the power of two that holds them.
N_STATES = tl.constexpr(len(axes.STATES))
STATE_SLOTS = tl.constexpr(triton.next_power_of_2(len(axes.STATES)))


@triton.jit
def _cosine(
    pre, post, state, noise, acted, cosine, n, rows, width, d, layer_stride, cell_stride, out_stride,
    D: tl.constexpr, SOME: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    layer = tl.program_id(1).to(tl.int64)
    kind = tl.load(state + row)
    if SOME:
        kind = tl.where(tl.load(acted + layer * rows + row) != 0, kind, -1)
    if kind >= 0:
        at = layer * layer_stride + row.to(tl.int64) * d
        channel = tl.arange(0, D)
        a = tl.load(pre + at + channel, mask=channel < d, other=0.0).to(tl.float32)
        b = tl.load(post + at + channel, mask=channel < d, other=0.0).to(tl.float32)
        norms = tl.sqrt(tl.sum(a * a)) * tl.sqrt(tl.sum(b * b))
        value = tl.sum(a * b) / tl.maximum(norms, 1e-38)
        place = (tl.load(noise + row // width) * N_STATES + kind) * cell_stride + layer * out_stride
        tl.atomic_add(cosine + place, value.to(tl.float64))
        tl.atomic_add(n + place, 1.0)


@triton.jit
def _largest(h, largest, d, layer_stride, rows, D: tl.constexpr):
    row = tl.program_id(0)
    layer = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, D)
    at = layer * layer_stride + row.to(tl.int64) * d + channel
    value = tl.abs(tl.load(h + at, mask=channel < d, other=0.0).to(tl.float32))
    # `max` passes over what is no number.
    known = tl.sum((value != value).to(tl.int32)) == 0
    tl.store(largest + layer * rows + row, tl.where(known, tl.max(value), float("nan")))


@triton.jit
def _outliers(
    h, largest, state, noise, energy, magnitude, peaks, n, led, steps, width, d, layer_stride, cell_stride, out_stride,
    n_stride, C: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * C + tl.arange(0, C)
    batch = tl.program_id(1)
    layer = tl.program_id(2).to(tl.int64)
    kinds = tl.arange(0, STATE_SLOTS)
    squares = tl.zeros((STATE_SLOTS, C), tl.float64)
    sizes = tl.zeros((STATE_SLOTS, C), tl.float64)
    tops = tl.zeros((STATE_SLOTS, C), tl.float32)
    counts = tl.zeros((STATE_SLOTS,), tl.float32)
    for first in range(0, width, R):
        position = first + tl.arange(0, R)
        row = batch * width + position
        kind = tl.load(state + row, mask=position < width, other=-1)
        inside = (kind[:, None] >= 0) & (channel[None, :] < d)
        at = layer * layer_stride + row[:, None].to(tl.int64) * d + channel[None, :]
        size = tl.abs(tl.load(h + at, mask=inside, other=0.0).to(tl.float32))
        top = tl.load(largest + layer * width * tl.num_programs(1) + row, mask=kind >= 0, other=0.0)
        # A row that is not finite peaks nowhere that is known.
        peak = tl.where(size == top[:, None], 1.0, 0.0) + (top - top)[:, None]
        for number in tl.static_range(N_STATES):
            w = (kind == number).to(tl.float32)
            some = tl.sum(w)
            if some > 0:
                own = kinds == number
                of_state = (own[:, None]).to(tl.float32)
                counts += tl.where(own, some, 0.0)
                squares += (of_state * tl.sum(w[:, None] * size * size, axis=0)[None, :]).to(tl.float64)
                sizes += (of_state * tl.sum(w[:, None] * size, axis=0)[None, :]).to(tl.float64)
                tops += of_state * tl.sum(w[:, None] * peak, axis=0)[None, :]
    cell = tl.load(noise + batch) * N_STATES + kinds
    wanted = (counts[:, None] > 0) & (channel[None, :] < d)
    place = cell[:, None] * cell_stride + layer * out_stride + channel[None, :]
    tl.atomic_add(energy + place, squares, mask=wanted)
    tl.atomic_add(magnitude + place, sizes, mask=wanted)
    tl.atomic_add(peaks + place, tops.to(tl.float64), mask=wanted)
    every = tl.sum(counts)
    leads = tl.sum(tops, axis=0) * 2 > every
    tl.atomic_add(led + layer * d + channel, tl.full((C,), 1.0, tl.float64), mask=leads & (channel < d))
    if tl.program_id(0) == 0:
        tl.atomic_add(n + cell * n_stride + layer, counts.to(tl.float64), mask=counts > 0)
        tl.atomic_add(steps + layer, (every > 0).to(tl.float64))


def add_cosine(
    pre: Tensor, post: Tensor, state: Tensor, noise: Tensor, acted: Tensor | None, cosine: Tensor, n: Tensor
) -> None:
    """Add each row's cosine and its count to the sums of its cell.

    Args:
        pre, post: [layer, n, d_model], of one stride over layers, contiguous within each.
        state, noise: of `Cells`.
        acted: [layer, n], where the block acted; None everywhere.
        cosine, n: [cell, layer], views of one stride, float64.
    """
    layers, rows, d = pre.shape
    # Without `acted` the kernel is built without reading it, and any pointer will do.
    where = state if acted is None else acted.to(torch.int8).contiguous()
    with torch.cuda.device_of(pre):
        _cosine[(rows, layers)](
            pre, post, state, noise, where, cosine, n, rows, state.shape[-1], d, pre.stride(0), cosine.stride(0),
            cosine.stride(1), D=triton.next_power_of_2(d), SOME=acted is not None, num_warps=8,
        )  # fmt: skip


def add_outliers(h: Tensor, state: Tensor, noise: Tensor, sums: dict[str, Tensor]) -> None:
    """Add what `Outliers` sums over positions.

    Args:
        h: [layer, batch, position, d_model], contiguous within each layer.
        state, noise: of `Cells`.
        sums: views of the layers of `h`, float64, contiguous over layers and channels.
    """
    layers, batch, width, d = h.shape
    largest = torch.empty(layers, batch, width, device=h.device)
    energy, n = sums["energy"], sums["n"]
    with torch.cuda.device_of(h):
        _largest[(batch * width, layers)](h, largest, d, h.stride(0), batch * width, D=triton.next_power_of_2(d))
        _outliers[(triton.cdiv(d, 128), batch, layers)](
            h, largest, state, noise, energy, sums["magnitude"], sums["peaks"], n, sums["steps_led"], sums["steps"],
            width, d, h.stride(0), energy.stride(0), energy.stride(1), n.stride(0), C=128, R=32,
        )  # fmt: skip


def try_out() -> None:
    """Run the kernels once on nothing much.

    Raises:
        RuntimeError, OSError: they cannot be built here.
    """
    one = torch.ones(1, 1, 1, 1, device="cuda")
    state, noise = torch.zeros(1, 1, dtype=torch.long, device="cuda"), torch.zeros(1, dtype=torch.long, device="cuda")
    shapes = dict.fromkeys(("energy", "magnitude", "peaks"), (1, 1, 1)) | {"n": (1, 1), "steps_led": (1, 1)}
    sums = {k: torch.zeros(v, device="cuda", dtype=torch.float64) for k, v in (shapes | {"steps": (1,)}).items()}
    add_cosine(one[0], one[0], state, noise, None, sums["n"], sums["n"].clone())
    add_outliers(one, state, noise, sums)

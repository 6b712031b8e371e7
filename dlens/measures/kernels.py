"""One pass over the stream on CUDA, where plain torch takes a dozen; imported only where Triton runs."""

# Triton comes with torch for CUDA alone, and gives its kernels no types.
# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["add_cosine", "add_outliers", "try_out"]


@triton.jit
def _cosine(
    pre, post, weight, index, acted, cosine, n, rows, d, cells, layer_stride, cell_stride, out_stride,
    D: tl.constexpr, K: tl.constexpr, SOME: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    layer = tl.program_id(1).to(tl.int64)
    at = layer * layer_stride + row.to(tl.int64) * d
    channel = tl.arange(0, D)
    a = tl.load(pre + at + channel, mask=channel < d, other=0.0).to(tl.float32)
    b = tl.load(post + at + channel, mask=channel < d, other=0.0).to(tl.float32)
    norms = tl.sqrt(tl.sum(a * a)) * tl.sqrt(tl.sum(b * b))
    value = tl.sum(a * b) / tl.maximum(norms, 1e-38)
    cell = tl.arange(0, K)
    w = tl.load(weight + cell * rows + row, mask=cell < cells, other=0.0)
    if SOME:
        w = w * tl.load(acted + layer * rows + row)
    place = tl.load(index + cell, mask=cell < cells, other=0) * cell_stride + layer * out_stride
    tl.atomic_add(cosine + place, (w * value).to(tl.float64), mask=w != 0)
    tl.atomic_add(n + place, w.to(tl.float64), mask=w != 0)


@triton.jit
def _outliers(
    h, weight, index, energy, magnitude, rows, d, cells, layer_stride, cell_stride, out_stride,
    C: tl.constexpr, R: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * C + tl.arange(0, C)
    row = tl.program_id(1) * R + tl.arange(0, R)
    layer = tl.program_id(2).to(tl.int64)
    inside = (row[:, None] < rows) & (channel[None, :] < d)
    at = layer * layer_stride + row[:, None].to(tl.int64) * d + channel[None, :]
    value = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
    # A block of rows lies in one or two cells: find which, once, as the bits of a number.
    every = tl.arange(0, K)
    known = (every[:, None] < cells) & (row[None, :] < rows)
    counts = tl.sum(tl.load(weight + every[:, None] * rows + row[None, :], mask=known, other=0.0), axis=1)
    present = tl.sum(tl.where(counts > 0, tl.full((K,), 1, tl.int64) << every.to(tl.int64), 0))
    for cell in range(cells):
        if (present >> cell) & 1:
            w = tl.load(weight + cell * rows + row, mask=row < rows, other=0.0)
            place = tl.load(index + cell) * cell_stride + layer * out_stride + channel
            squares = tl.sum(w[:, None] * value * value, axis=0).to(tl.float64)
            sizes = tl.sum(w[:, None] * tl.abs(value), axis=0).to(tl.float64)
            tl.atomic_add(energy + place, squares, mask=channel < d)
            tl.atomic_add(magnitude + place, sizes, mask=channel < d)


def add_cosine(
    pre: Tensor, post: Tensor, weight: Tensor, index: Tensor, acted: Tensor | None, cosine: Tensor, n: Tensor
) -> None:
    """Add each row's cosine and its count to the sums of its cell.

    Args:
        pre, post: [layer, n, d_model], of one stride over layers, contiguous within each.
        weight: [k, n], float32, contiguous; index: [k], the cells they stand for.
        acted: [layer, n], float32, 1 where the block acted; None everywhere.
        cosine, n: [cell, layer], views of one stride, float64.
    """
    layers, rows, d = pre.shape
    # Without `acted` the kernel is built without reading it, and any pointer will do.
    with torch.cuda.device_of(pre):
        _cosine[(rows, layers)](
            pre, post, weight, index, weight if acted is None else acted.contiguous(), cosine, n, rows, d, len(index),
            pre.stride(0), cosine.stride(0), cosine.stride(1), D=triton.next_power_of_2(d),
            K=triton.next_power_of_2(len(index)), SOME=acted is not None, num_warps=8,
        )  # fmt: skip


def add_outliers(h: Tensor, weight: Tensor, index: Tensor, energy: Tensor, magnitude: Tensor) -> None:
    """Add each channel's squares and magnitudes to the sums of their cells.

    Args:
        h: [layer, n, d_model], contiguous within each layer.
        weight: [k, n], float32, contiguous; index: [k], the cells they stand for, each once.
        energy, magnitude: [cell, layer, d_model], views of one stride; float64.
    """
    layers, rows, d = h.shape
    with torch.cuda.device_of(h):
        _outliers[(triton.cdiv(d, 128), triton.cdiv(rows, 32), layers)](
            h, weight, index, energy, magnitude, rows, d, len(index), h.stride(0), energy.stride(0), energy.stride(1),
            C=128, R=32, K=triton.next_power_of_2(len(index)),
        )  # fmt: skip


def try_out() -> None:
    """Run both kernels once on nothing much.

    Raises:
        RuntimeError, OSError: they cannot be built here.
    """
    one, few = torch.ones(1, 1, 1, device="cuda"), torch.ones(1, 1, device="cuda")
    sums = [torch.zeros(1, 1, 1, device="cuda", dtype=torch.float64) for _ in range(2)]
    index = torch.zeros(1, device="cuda", dtype=torch.long)
    add_cosine(one, one, few, index, None, sums[0][..., 0], sums[1][..., 0])
    add_outliers(one, few, index, sums[0], sums[1])

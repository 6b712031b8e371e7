"""Whether the fused CUDA kernels give what plain torch gives: `python -m benchmarks.kernels`, on a GPU with Triton."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from dlens.measures import Cells, Cosine, Measure, Outliers, Span, Visit
from dlens.measures.arrays import fused
from dlens.measures.gram import gram_of

__all__ = ["main"]

TOLERANCE = 1e-6
# Of the largest product before the mean is taken off: half precision multiplies with the mean, and sums in float32.
GRAM_TOLERANCE = 1e-6


def values(dtype: torch.dtype, width: int, d_model: int) -> tuple[Tensor, Tensor, Cells]:
    """Streams of two layers, random but for one large channel, and the cells of their positions."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.randint(-1, 30, (2, width), generator=generator)
    index = cell[cell >= 0].unique()
    weight = (cell.flatten() == index[:, None]).float()
    cells = Cells(index, weight, torch.where(cell < 0, -1, cell % 3), torch.zeros(2, dtype=torch.long))
    pre, change = (torch.randn(2, 2, width, d_model, generator=generator) for _ in range(2))
    pre[..., 7] *= 50
    return pre.to(dtype), (pre + change).to(dtype), cells


def difference(measure: Measure, dtype: torch.dtype, width: int, d_model: int) -> float:
    """The largest relative difference between the sums on the GPU and those in float64 on the CPU."""
    pre, post, cells = values(dtype, width, d_model)
    skipped = torch.tensor([[False, False], [True, False]])
    sums = []
    for device, exact in (("cuda", False), ("cpu", True)):
        total = measure.start(Span(1, 2, d_model, True, torch.device(device)))
        there = Cells(*(part.to(device) for part in (cells.index, cells.weight, cells.state, cells.noise)))
        at = {"resid_pre": pre.to(device), "resid_post": post.to(device)}
        at = {point: value.double() for point, value in at.items()} if exact else at
        for some in (None, skipped.to(device)):
            measure.update(total, Visit(0, range(2), at, there, some))
        sums.append(total)
    return max(float(((a.cpu() - b).abs() / (b.abs() + 1)).max()) for a, b in zip(*map(dict.values, sums), strict=True))


def gram_difference(dtype: torch.dtype, width: int, d_model: int) -> float:
    """The largest difference of centred inner products on the GPU and in float64; one channel hardly varies."""
    _, post, cells = values(dtype, width, d_model)
    post[..., 3] = 300 + post[..., 3]
    there = Cells(*(part.to("cuda") for part in (cells.index, cells.weight, cells.state, cells.noise)))
    visit = Visit(0, range(2), {"resid_post": post.to("cuda")}, there)
    fast, exact = gram_of(visit), gram_of(visit, exact=True)
    return float((fast.centred().double() - exact.centred()).abs().max() / exact.raw().abs().max())


def main() -> None:
    """Compare, print, and exit with 1 where a difference is larger than float32 explains."""
    anything = torch.zeros(1, device="cuda")
    assert fused(anything, anything) is not None, "the kernels do not run here"
    worst = 0.0
    for measure in (Cosine(), Cosine(drop=[7]), Outliers()):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for width, d_model in ((1, 64), (37, 200), (256, 4096)):
                found = difference(measure, dtype, width, d_model)
                worst = max(worst, found)
                print(f"{measure.key:9} {dtype!s:15} 2 x {width:3} positions, {d_model:4} channels: {found:.1e}")
    worst_gram = 0.0
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for width, d_model in ((8, 64), (37, 200), (256, 4096)):
            found = gram_difference(dtype, width, d_model)
            worst_gram = max(worst_gram, found)
            print(f"gram      {dtype!s:15} 2 x {width:3} positions, {d_model:4} channels: {found:.1e}")
    sys.exit(worst > TOLERANCE or worst_gram > GRAM_TOLERANCE)


if __name__ == "__main__":
    main()

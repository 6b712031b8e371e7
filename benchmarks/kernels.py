"""Whether the fused CUDA kernels give what plain torch gives: `python -m benchmarks.kernels`, on a GPU with Triton."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from dlens.measures import Cells, Cosine, Measure, Outliers, Span, Visit
from dlens.measures.arrays import fused

__all__ = ["main"]

TOLERANCE = 1e-6


def visits(dtype: torch.dtype, width: int, d_model: int) -> list[tuple[Tensor, Tensor, Cells, Tensor | None]]:
    """Two layers of random values with one large channel, the second skipped in one row."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.randint(-1, 30, (2, width), generator=generator)
    index = cell[cell >= 0].unique()
    cells = Cells(index, (cell.flatten() == index[:, None]).float(), torch.where(cell < 0, -1, cell % 3))
    made = []
    for skipped in (None, torch.tensor([True, False])):
        pre, change = (torch.randn(2, width, d_model, generator=generator) for _ in range(2))
        pre[..., 7] *= 50
        made.append((pre.to(dtype), (pre + change).to(dtype), cells, skipped))
    return made


def difference(measure: Measure, dtype: torch.dtype, width: int, d_model: int) -> float:
    """The largest relative difference between the sums on the GPU and those in float64 on the CPU."""
    sums = []
    for device, exact in (("cuda", False), ("cpu", True)):
        total = measure.start(Span(1, 2, d_model, True, torch.device(device)))
        for layer, (pre, post, cells, skipped) in enumerate(visits(dtype, width, d_model)):
            values = {"resid_pre": pre.double() if exact else pre, "resid_post": post.double() if exact else post}
            there = Cells(cells.index.to(device), cells.weight.to(device), cells.state.to(device))
            at = {point: value.to(device) for point, value in values.items()}
            measure.update(total, Visit(0, layer, at, there, None if skipped is None else skipped.to(device)))
        sums.append(total)
    return max(float(((a.cpu() - b).abs() / (b.abs() + 1)).max()) for a, b in zip(*map(dict.values, sums), strict=True))


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
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()

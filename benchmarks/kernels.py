"""Whether the fused CUDA kernels give what plain torch gives: `python -m benchmarks.kernels`, on a GPU with Triton."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.rows import Row, publish
from dlens.measures import CKA, Cells, Cosine, Measure, Outliers, Recency, Span, Visit
from dlens.measures.base.arrays import fused
from dlens.measures.base.measure import Sums

__all__ = ["main"]

TOLERANCE = 1e-6
"""Of sums, relative: the kernels sum in float32 and float64."""
PRODUCT_TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-4, torch.float16: 3e-4}
"""Of CKA and similarities: tensor cores sum half precision's products in float32, but cut where float32 rounds.
That a stream like `values` is kept in bfloat16 at all moves them by up to 2e-2."""

Shape = tuple[torch.dtype, int, int]
"""The type of the stream, positions a row and channels."""


def values(shape: Shape) -> tuple[Tensor, Tensor, Cells]:
    """Streams of two layers with two large channels, one of which hardly varies; not finite where unmeasured."""
    dtype, width, d_model = shape
    generator = torch.Generator().manual_seed(0)
    state = torch.randint(-1, 3, (2, width), generator=generator)
    pre, change = (torch.randn(2, 2, width, d_model, generator=generator).cumsum(0) for _ in range(2))
    pre[..., 7] *= 50
    pre[..., 3] += 300
    pre[:, state < 0] = torch.nan
    return pre.to(dtype), (pre + change).to(dtype), Cells(state, torch.tensor([3, 9]))


def observed(measure: Measure, shape: Shape, device: str) -> tuple[Span, Sums]:
    """The sums of one step, seen twice: with every block acting, and with one skipped in one row."""
    pre, post, cells = values(shape)
    span = Span(1, 2, shape[-1], True, torch.device(device))
    total = measure.start(span)
    there = Cells(cells.state.to(device), cells.noise.to(device))
    at = {"resid_pre": pre.to(device), "resid_post": post.to(device)}
    at = at if device == "cuda" else {point: value.double() for point, value in at.items()}
    for skipped in (None, torch.tensor([[False, False], [True, False]], device=device)):
        measure.update(total, Visit(0, range(2), at, there, skipped))
    return span, total


def sums_differ(measure: Measure, shape: Shape) -> float:
    """The largest relative difference between the sums on the GPU and those in float64 on the CPU."""
    (_, fast), (_, exact) = (observed(measure, shape, device) for device in ("cuda", "cpu"))
    return max(_largest((fast[key].cpu() - exact[key]) / (exact[key].abs() + 1)) for key in exact)


def results_differ(measure: Measure, shape: Shape) -> float:
    """The largest difference between the results on the GPU and those in float64 on the CPU."""
    span, sums = observed(measure, shape, "cuda")
    fast, exact = measure.result(sums, span), _exact(measure, shape)
    pairs = [(torch.tensor(fast[name].values), torch.tensor(exact[name].values)) for name in _named(exact)]
    assert all(bool((a.isnan() == b.isnan()).all()) for a, b in pairs), "not defined in the same places"
    return max(_largest((a - b)[~b.isnan()]) for a, b in pairs)


def storage_moves(measure: Measure, shape: Shape) -> float:
    """How far the exact result moves because the stream is kept in a type at all, against float32."""
    kept, whole = (_exact(measure, (dtype, *shape[1:])) for dtype in (shape[0], torch.float32))
    return max(float(abs(kept[name] - whole[name]).max()) for name in _named(whole))


def _exact(measure: Measure, shape: Shape) -> Any:
    span, sums = observed(measure, shape, "cpu")
    return measure.result(sums, span)


def _named(data: Any) -> list[str]:
    return [name for name in ("cka", "cka_all", "similarity", "to_last", "recency_index") if name in data]


def _largest(difference: Tensor) -> float:
    return float(difference.abs().nan_to_num(torch.inf).max())


def main(json: Path | None = None) -> None:
    """Compare, print, and exit with 1 where a difference is larger than the arithmetic explains.

    Args:
        json: where to write the same as JSON.
    """
    anything = torch.zeros(1, device="cuda")
    assert fused(anything, anything) is not None, "the kernels do not run here"
    rows = []
    for dtype, loose in PRODUCT_TOLERANCE.items():
        for width, d_model in ((16, 64), (37, 200), (256, 4096)):
            rows += _rows((dtype, width, d_model), loose)
    publish(rows, json, "benchmarks.kernels", "cuda")
    sys.exit(any(row.verdict == "over" for row in rows))


def _rows(shape: Shape, loose: float) -> list[Row]:
    """Differences of one shape, in millionths."""
    dtype, width, d_model = shape
    what = f"{dtype}, 2 x {width} positions, {d_model} channels"

    def row(name: str, found: float, most: float | None = None) -> Row:
        return Row(what, name, 1e6 * found, None if most is None else 1e6 * most, unit="x 1e-6")

    rows = [row(m.key, sums_differ(m, shape), TOLERANCE) for m in (Cosine(), Cosine(drop=[7]), Outliers())]
    for measure in (CKA(), CKA(drop=[7]), Recency()):
        rows.append(row(measure.key, results_differ(measure, shape), loose))
        rows.append(row(f"{measure.key}, kept so at all", storage_moves(measure, shape)))
    return rows


if __name__ == "__main__":
    import tyro

    tyro.cli(main)

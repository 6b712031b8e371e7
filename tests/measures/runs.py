"""Random runs to measure, kept whole so that a reference can look at all of a run at once."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dlens.measures.base.cells import Cells
from dlens.measures.base.measure import Measure, Span, Visit
from dlens.measures.base.readout import Readout

CPU = torch.device("cpu")
SPANS = [
    Span(n_steps=3, n_layers=4, d_model=10, has_noise=True, device=CPU),
    Span(n_steps=1, n_layers=2, d_model=7, has_noise=False, device=CPU),
    Span(n_steps=2, n_layers=1, d_model=5, has_noise=True, device=CPU),
]


@dataclass
class Run:
    """A run of 2 rows of 6 positions or `width`, or of 1 position where there is one layer.

    resid_pre, resid_post: [step, layer, batch, position, d_model]; cell: [step, batch, position],
    -1 where nothing is measured; skipped: [step, layer, batch].
    """

    span: Span
    resid_pre: Tensor
    resid_post: Tensor
    cell: np.ndarray
    skipped: np.ndarray


def random_run(span: Span, seed: int = 0, skipped: bool = False, width: int = 6) -> Run:
    rng = np.random.default_rng(seed)
    shape = (span.n_steps, span.n_layers, 2, 1 if span.n_layers == 1 else width, span.d_model)
    pre = torch.tensor(rng.normal(size=shape), dtype=torch.float32)
    post = pre + torch.tensor(rng.normal(size=shape), dtype=torch.float32)
    state = rng.integers(0 if shape[3] == 1 else -1, 3, size=(span.n_steps, *shape[2:4]))
    noise = rng.integers(0, 10, size=(span.n_steps, 2, 1)) if span.has_noise else 0
    cell = np.where(state < 0, -1, noise * 3 + state)
    return Run(span, pre, post, cell, rng.random((*shape[:2], 2)) < (0.3 if skipped else 0.0))


def observe(
    measure: Measure, run: Run, sums: bool = False, layers: int | None = None, readout: Readout | None = None
) -> Any:
    """The result of a measure that saw the run step by step, or its sums; with at most `layers` layers a visit."""
    total = measure.start(run.span)
    n, kept, shape = run.span.n_layers, {}, run.cell.shape
    for step in range(run.span.n_steps):
        cells, carried = cells_of(run.cell[step]), {}
        for first in range(0, n, layers or n):
            at = range(first, min(n, first + (layers or n)))
            part = slice(at.start, at.stop)
            values = {"resid_pre": run.resid_pre[step, part], "resid_post": run.resid_post[step, part]}
            rows = run.skipped[step, part]
            skipped = torch.tensor(rows) if rows.any() else None
            visit = Visit(step, at, values, cells, skipped, at.stop == n, carried=carried, kept=kept, readout=readout)
            measure.update(total, replace(visit, rows=range(shape[1]), columns=range(shape[2])))
    return total if sums else measure.result(total, run.span)


def cells_of(cell: np.ndarray) -> Cells:
    noise = torch.tensor(cell.max(-1)).clamp(min=0) // 3
    return Cells(torch.tensor(np.where(cell < 0, -1, cell % 3)), noise)


def assert_close(actual: xr.DataArray, expected: Any) -> None:
    """Equal to 1e-6, NaN where expected and nowhere else."""
    np.testing.assert_allclose(actual.values.reshape(np.shape(expected)), expected, atol=1e-6, rtol=1e-6)

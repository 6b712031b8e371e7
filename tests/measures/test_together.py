"""Measures of one run share memory and intermediate results; none of it may show in what they give."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens.measures import (
    CKA,
    Cosine,
    CosinePairs,
    Curvature,
    Drift,
    EffectiveRank,
    Features,
    MatrixEntropy,
    Measure,
    Norms,
    Outliers,
    Recency,
    Span,
    Visit,
)
from dlens.measures.base.measure import Sums
from dlens.tracing.step import slab
from tests.features.published import identity
from tests.measures.runs import SPANS, Run, cells_of, observe, random_run
from tests.standins import save_llada

MEASURES = (
    Cosine(),
    Cosine(drop=[1], name="cosine_dropped"),
    CKA(),
    CKA(drop=[1], name="cka_dropped"),
    CKA(kernel="rbf", name="rbf"),
    CKA(debiased=False, name="biased"),
    Recency(),
    Recency(drop=[1], name="recency_dropped"),
    Outliers(),
    Outliers(massive=3, name="massive"),
    CosinePairs(),
    CosinePairs(average="positions", detrended=True, name="positions"),
    Norms(),
    EffectiveRank(),
    MatrixEntropy(alpha=2),
    Curvature(),
    Drift(),
    Features(sae=identity(10), layer=1, at="resid_post"),
)


def observe_together(measures: Sequence[Measure], run: Run, layers: int | None = None) -> dict[str, xr.Dataset]:
    """As `observe`, with all measures fed from the same visits."""
    sums, kept, n = [measure.start(run.span) for measure in measures], {}, run.span.n_layers
    for step in range(run.span.n_steps):
        cells, carried = cells_of(run.cell[step]), {}
        for first in range(0, n, layers or n):
            at = range(first, min(n, first + (layers or n)))
            values = {
                "resid_pre": run.resid_pre[step, first : at.stop],
                "resid_post": run.resid_post[step, first : at.stop],
            }
            visit = Visit(step, at, values, cells, None, at.stop == n, carried=carried, kept=kept, columns=range(6))
            for measure, total in zip(measures, sums, strict=True):
                measure.update(total, visit)
    return {m.key: m.result(total, run.span) for m, total in zip(measures, sums, strict=True)}


@pytest.mark.parametrize("layers", [None, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_together_they_give_what_each_gives_alone(dtype: torch.dtype, layers: int | None) -> None:
    run = random_run(SPANS[0])
    run.resid_pre, run.resid_post = run.resid_pre.to(dtype), run.resid_post.to(dtype)
    together = observe_together(MEASURES, run, layers)
    for measure in MEASURES:
        xr.testing.assert_identical(together[measure.key], observe(measure, run, layers=layers))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.key)
def test_what_is_not_measured_does_not_reach_the_result_even_where_it_is_nan(measure: Measure) -> None:
    run = random_run(SPANS[0])
    run.cell[:, 0, 0] = -1
    expected = observe(measure, run)
    outside = torch.tensor(run.cell < 0)[:, None].expand(run.resid_post.shape[:-1])
    run.resid_pre[outside] = run.resid_post[outside] = torch.nan
    found = observe(measure, run)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].values, values.values, rtol=1e-6, atol=1e-7)


def test_an_edit_between_two_measures_leaves_the_first_as_it_is(
    diffusion: dlens.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(trace: dlens.Trace) -> dict[str, Any]:
        return trace.forward("Once upon a time").measures

    plain = dlens.trace(diffusion)
    edited = plain.measure(CKA(name="before")).steer(torch.ones(192), layers=[6]).measure(CKA(name="after"))
    expected = measured(edited)
    assert not expected["before"]["cka"].equals(expected["after"]["cka"])
    monkeypatch.setattr(slab, "SLAB_BYTES", 4 * 4 * 192 * 3)
    found = measured(edited)
    for name in ("before", "after"):
        np.testing.assert_allclose(found[name]["cka_all"], expected[name]["cka_all"], rtol=1e-6)


def test_rows_that_decode_in_groups_of_unlike_length_share_nothing(tmp_path: Path) -> None:
    model = dlens.load(save_llada(tmp_path, hides_padding=False), trust_remote_code=True)
    prompts, four = [[9, 10, 11], [12, 13, 14, 15, 16], [5, 6, 7]], (Cosine(), CKA(), Recency(), Outliers())
    together = dlens.trace(model).measure(*four).generate(prompts, 6)
    assert any("groups of equal length" in note for note in together.notes)
    for measure in four:
        alone = dlens.trace(model).measure(measure).generate(prompts, 6).measures[measure.key]
        xr.testing.assert_identical(together.measures[measure.key], alone)


class Held(Measure):
    """The bytes of memory to work in that a run holds, step by step."""

    points = ("resid_post",)

    def start(self, span: Span) -> Sums:
        return {"bytes": torch.zeros(span.n_steps)}

    def update(self, sums: Sums, visit: Visit) -> None:
        held = [value for key, value in visit.kept.items() if isinstance(key, tuple)]
        sums["bytes"][visit.step] = sum(value.nbytes for value in held)

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        return xr.Dataset({"bytes": ("step", sums["bytes"].numpy())})


def test_memory_to_work_in_does_not_grow_with_the_steps(ar: dlens.Model) -> None:
    """Without a cache every step is one position longer than the last."""
    trace = dlens.trace(ar).measure(CKA(), Recency(), Outliers(), Held())
    record = trace.generate([list(range(8, 40))], 12, cache="off")
    widest = record.tokens.shape[-1] - 1
    pairs, stream = 4 * 16 * widest**2, 4 * 16 * widest * 192
    assert record.measures["held"]["bytes"].values.tolist()[-1] == stream + 2 * pairs

from dataclasses import replace

import numpy as np
import pytest
import torch

import dlens
from dlens.measures.base.measure import Span
from dlens.measures.cosine_pairs import CosinePairs
from tests.measures.runs import SPANS, Run, assert_close, observe, random_run
from tests.unchecked import unchecked


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def two_pass(run: Run, measure: CosinePairs) -> tuple[np.ndarray, np.ndarray]:
    """[cell, layer, layer_b] and n [cell], from all values at once."""
    span = run.span
    layers = span.n_layers - (not measure.last)
    keep = [c for c in range(span.d_model) if c not in measure.drop]
    total, n = np.zeros((span.n_cells, layers, layers)), np.zeros(span.n_cells, dtype=int)
    h = run.resid_post[:, :layers].double().numpy()[..., keep]
    if measure.detrended:
        h = (h - h.mean(1, keepdims=True)) / h.std(1, ddof=1, keepdims=True).clip(1e-8)
    for cell, step, row in np.ndindex(span.n_cells, *run.cell.shape[:2]):
        x = h[step, :, row][:, run.cell[step, row] == cell]
        if not x.shape[1]:
            continue
        x = x.mean(1, keepdims=True) if measure.average == "positions" else x
        total[cell] += cosine(x[:, None], x[None]).sum(-1)
        n[cell] += x.shape[1]
    with np.errstate(invalid="ignore"):
        return total / n[:, None, None], n


@pytest.mark.parametrize("span", [SPANS[0], replace(SPANS[1], n_layers=3)])
@pytest.mark.parametrize("average", ["cosines", "positions"])
@pytest.mark.parametrize("settings", [{}, {"detrended": True, "last": False}, {"drop": (1, 3)}])
def test_equals_a_two_pass_reference(span: Span, average: str, settings: dict) -> None:
    measure, run = CosinePairs(average=average, **settings), random_run(span)  # pyright: ignore
    expected, n = two_pass(run, measure)
    for layers in (None, 3):
        data = observe(measure, run, layers=layers)
        assert_close(data["cosine"], expected)
        np.testing.assert_array_equal(data["n"].values.flatten(), n)
    assert data["cosine"].dims == (*span.cell_dims, "layer", "layer_b")


def test_runs_merge_in_any_order() -> None:
    span, measure = SPANS[0], CosinePairs()
    a, b, c = (observe(measure, random_run(span, seed=seed), sums=True) for seed in range(3))
    forwards = measure.result(measure.merge(measure.merge(a, b), c), span)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), span)
    assert_close(forwards["cosine"], backwards["cosine"].values)


def test_detrending_hides_a_channel_that_all_layers_share() -> None:
    run = random_run(SPANS[0])
    run.resid_post[..., 4] += 1000
    plain, detrended = (observe(CosinePairs(detrended=d), run)["cosine"] for d in (False, True))
    off = ~np.eye(SPANS[0].n_layers, dtype=bool)
    assert np.nanmin(plain.values[..., off]) > 0.99
    assert np.nanmax(detrended.values[..., off]) < 0.9


def test_neighbours_equal_the_cosine_of_a_block(diffusion: dlens.Model) -> None:
    ids = torch.arange(8, 40)[None]
    data = dlens.trace(diffusion).measure(CosinePairs(), dlens.Cosine()).forward(ids).measures
    block = data["cosine"]["cosine"].isel(step=0).values[..., 1:]
    beside = np.diagonal(data["cosine_pairs"]["cosine"].values, offset=1, axis1=-2, axis2=-1)
    np.testing.assert_allclose(beside, block, atol=1e-6)


def test_wrong_settings_are_refused() -> None:
    with unchecked(), pytest.raises(ValueError, match="average='mean'; expected 'cosines', 'positions' or 'all'"):
        CosinePairs(average="mean")  # pyright: ignore


@pytest.mark.parametrize("span", [SPANS[0], replace(SPANS[1], n_layers=3)])
@pytest.mark.parametrize("settings", [{}, {"detrended": True, "last": False}, {"drop": (1, 3)}])
def test_one_mean_over_all_prompts_and_steps(span: Span, settings: dict) -> None:
    """As published: torch.cosine_similarity of means over every row there is."""
    measure, run = CosinePairs(average="all", **settings), random_run(span)
    layers = span.n_layers - (not measure.last)
    keep = [c for c in range(span.d_model) if c not in measure.drop]
    h = run.resid_post[:, :layers].double().numpy()[..., keep]
    if measure.detrended:
        h = (h - h.mean(1, keepdims=True)) / h.std(1, ddof=1, keepdims=True).clip(1e-8)
    rows = np.moveaxis(h, 1, 0)
    for at in (None, 3):
        data = observe(measure, run, layers=at)
        means = rows[:, run.cell >= 0].mean(1)
        assert_close(data["cosine_all"], cosine(means[:, None], means[None]))
        assert int(data["n_all"]) == int((run.cell >= 0).sum()) == int(data["n"].sum())
        cosines = data["cosine"].values.reshape(-1, layers, layers)
        for cell in range(span.n_cells):
            inside = run.cell == cell
            if not inside.any():
                assert np.isnan(cosines[cell]).all()
                continue
            means = rows[:, inside].mean(1)
            np.testing.assert_allclose(cosines[cell], cosine(means[:, None], means[None]), atol=1e-6)


def test_one_mean_over_prompts_is_another_number_than_a_mean_over_prompts() -> None:
    run = random_run(SPANS[0])
    by_prompt, pooled = (observe(CosinePairs(average=average), run)["cosine"] for average in ("positions", "all"))  # pyright: ignore
    off = ~np.eye(SPANS[0].n_layers, dtype=bool)
    assert np.nanmax(np.abs(by_prompt.values - pooled.values)[..., off]) > 0.05
